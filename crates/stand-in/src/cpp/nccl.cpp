// NCCL between threads or processes of one machine, over sockets: worker 0 adds up in the order of ranks.

#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <atomic>
#include <cstdio>
#include <map>
#include <mutex>
#include <string>

typedef int Status;
constexpr Status SUCCESS = 0, SYSTEM_ERROR = 2, INVALID_ARGUMENT = 4, INVALID_USAGE = 5;

struct UniqueId {
    char name[128];
};
struct Comm {
    int rank, size;
    // Worker 0 has a socket to each other worker, by rank; the others have one to worker 0.
    std::vector<int> sockets;
    std::atomic<bool> aborted{false};
    // The number of exchanges in captured steps that can still be replayed.
    std::atomic<int> captured{0};
};
// Sent by every worker before an exchange, in which all must request the same operation.
struct Header {
    u64 gather, type, count;
};
struct Work {
    Comm *comm;
    Header header;
    const void *from;
    void *to;
    void *stream;
    bool captured;
};

static std::mutex names;
static std::map<std::string, int> listening;
static thread_local int depth;
// Operations requested in the current group.
static thread_local std::vector<Work *> asked;

extern "C" int cuStreamIsCapturing(void *stream, int *status);

static sockaddr_un address_of(const UniqueId &id) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    // The first byte stays 0: an abstract name, outside of the file system.
    snprintf(address.sun_path + 1, sizeof address.sun_path - 1, "%s", id.name);
    return address;
}
static bool send_all(int to, const void *from, size_t bytes) {
    for (size_t done = 0; done < bytes;) {
        ssize_t sent = send(to, (const char *)from + done, bytes - done, MSG_NOSIGNAL);
        if (sent <= 0) return false;
        done += sent;
    }
    return true;
}
static bool receive_all(int from, void *to, size_t bytes) {
    for (size_t done = 0; done < bytes;) {
        ssize_t got = recv(from, (char *)to + done, bytes - done, 0);
        if (got <= 0) return false;
        done += got;
    }
    return true;
}

API Status ncclGetVersion(int *version) {
    *version = 22703;
    return SUCCESS;
}
API const char *ncclGetErrorString(Status status) {
    return status == SYSTEM_ERROR ? "unhandled system error" : status == INVALID_USAGE ? "invalid usage" : "invalid argument";
}
API Status ncclGetUniqueId(UniqueId *id) {
    static int count;
    std::lock_guard<std::mutex> alone(names);
    memset(id, 0, sizeof *id);
    snprintf(id->name, sizeof id->name, "stand-in-%d-%d", getpid(), count++);
    int listener = socket(AF_UNIX, SOCK_STREAM, 0);
    sockaddr_un address = address_of(*id);
    if (listener < 0 || bind(listener, (sockaddr *)&address, sizeof address) || listen(listener, 64)) return SYSTEM_ERROR;
    listening[id->name] = listener;
    return SUCCESS;
}
API Status ncclCommInitRank(Comm **comm, int size, UniqueId id, int rank) {
    if (rank < 0 || rank >= size) return INVALID_ARGUMENT;
    Comm *made = new Comm;
    made->rank = rank;
    made->size = size;
    made->sockets.assign(size, -1);
    if (rank == 0) {
        int listener;
        {
            std::lock_guard<std::mutex> alone(names);
            if (!listening.count(id.name)) return INVALID_ARGUMENT;
            listener = listening[id.name];
            listening.erase(id.name);
        }
        for (int come = 1; come < size; ++come) {
            int other = accept(listener, nullptr, nullptr), who = -1;
            if (other < 0 || !receive_all(other, &who, sizeof who) || who < 1 || who >= size || made->sockets[who] >= 0) return SYSTEM_ERROR;
            made->sockets[who] = other;
        }
        close(listener);
    } else {
        int to = socket(AF_UNIX, SOCK_STREAM, 0);
        sockaddr_un address = address_of(id);
        if (to < 0 || connect(to, (sockaddr *)&address, sizeof address) || !send_all(to, &rank, sizeof rank)) return SYSTEM_ERROR;
        made->sockets[0] = to;
    }
    *comm = made;
    return SUCCESS;
}
// Ends exchanges that wait for other workers, then waits until captured steps that use the group are destroyed.
API Status ncclCommAbort(Comm *comm) {
    comm->aborted = true;
    for (int other : comm->sockets)
        if (other >= 0) shutdown(other, SHUT_RDWR);
    while (comm->captured) usleep(1000);
    return SUCCESS;
}
API Status ncclCommGetAsyncError(Comm *, Status *error) {
    *error = SUCCESS;
    return SUCCESS;
}
API Status ncclGroupStart() {
    ++depth;
    return SUCCESS;
}

template <class T> static void add(T *sums, const T *values, size_t count) {
    for (size_t i = 0; i < count; ++i) sums[i] += values[i];
}

static bool of_worker_0(const Work &work, size_t bytes) {
    const Comm &comm = *work.comm;
    std::vector<char> all(bytes * (work.header.gather ? comm.size : 1)), own(bytes);
    memcpy(all.data(), work.from, bytes);
    for (int rank = 1; rank < comm.size; ++rank) {
        Header header;
        if (!receive_all(comm.sockets[rank], &header, sizeof header)) return false;
        if (memcmp(&header, &work.header, sizeof header)) {
            fprintf(stderr, "worker %d exchanges something else than worker 0\n", rank);
            return false;
        }
        char *to = work.header.gather ? all.data() + rank * bytes : own.data();
        if (!receive_all(comm.sockets[rank], to, bytes)) return false;
        if (work.header.gather) continue;
        if (work.header.type == 7) add((float *)all.data(), (float *)to, work.header.count);
        else add((double *)all.data(), (double *)to, work.header.count);
    }
    for (int rank = 1; rank < comm.size; ++rank)
        if (!send_all(comm.sockets[rank], all.data(), all.size())) return false;
    memcpy(work.to, all.data(), all.size());
    return true;
}
static bool of_another(const Work &work, size_t bytes) {
    int to = work.comm->sockets[0];
    return send_all(to, &work.header, sizeof work.header) && send_all(to, work.from, bytes) &&
           receive_all(to, work.to, bytes * (work.header.gather ? work.comm->size : 1));
}
static void exchange(void *data) {
    const Work &work = *(const Work *)data;
    size_t bytes = work.header.count * (work.header.type == 7 ? 4 : 8);
    // If a worker has gone, wait until the group is aborted, and leave the output as it is.
    bool done = work.comm->rank == 0 ? of_worker_0(work, bytes) : of_another(work, bytes);
    while (!done && !work.comm->aborted) usleep(1000);
}
static void when_its_turn_comes(void *data) { stand_in_apart(exchange, data); }
static void forget(void *data) {
    Work *work = (Work *)data;
    if (work->captured) --work->comm->captured;
    delete work;
}
// All operations start only here: the buffers must not have been dropped or changed since they were requested.
API Status ncclGroupEnd() {
    if (depth <= 0) return INVALID_USAGE;
    if (--depth) return SUCCESS;
    for (Work *work : asked) {
        int capturing = 0;
        cuStreamIsCapturing(work->stream, &capturing);
        work->captured = capturing;
        if (capturing) ++work->comm->captured;
        stand_in_enqueue(work->stream, when_its_turn_comes, work, forget);
    }
    asked.clear();
    return SUCCESS;
}

static Status ask(Comm *comm, Header header, const void *from, void *to, void *stream) {
    // An exchange outside of a group would be legal, but the program always uses one.
    if (!depth || comm->aborted || (header.type != 7 && header.type != 8)) return INVALID_USAGE;
    asked.push_back(new Work{comm, header, from, to, stream, false});
    return SUCCESS;
}
API Status ncclAllReduce(const void *from, void *to, size_t count, int type, int operation, Comm *comm, void *stream) {
    return operation ? INVALID_ARGUMENT : ask(comm, Header{0, (u64)type, count}, from, to, stream);
}
API Status ncclAllGather(const void *from, void *to, size_t count, int type, Comm *comm, void *stream) {
    return ask(comm, Header{1, (u64)type, count}, from, to, stream);
}

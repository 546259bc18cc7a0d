// The driver. Streams queue work, and do it only when something waits for it: as late as a GPU might.

#include <dlfcn.h>
#include <sys/mman.h>

#include <condition_variable>
#include <cstdio>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>

typedef int Result;
constexpr Result SUCCESS = 0, INVALID_VALUE = 1, OUT_OF_MEMORY = 2, NOT_INITIALIZED = 3, INVALID_DEVICE = 101, INVALID_IMAGE = 200,
                 NO_CONTEXT = 201, NOT_FOUND = 500, LAUNCH_FAILED = 719, CAPTURE_UNSUPPORTED = 900, CAPTURE_INVALIDATED = 901,
                 CAPTURE_WRONG_THREAD = 908;
constexpr size_t TOTAL = size_t(1) << 30, GRANULE = 2 << 20;
constexpr int DEVICES = 2;

typedef std::function<void()> Work;
struct Graph {
    std::vector<Work> work;
};
struct Stream {
    std::deque<Work> waiting;
    u64 asked = 0, done = 0;
    Graph *capture = nullptr;
    std::thread::id by;
    bool invalidated = false, running = false;
};
struct Event {
    Stream *stream = nullptr;
    u64 at = 0;
};
struct Module {
    void *library;
};
struct Function {
    const char *(*entry)(void **, unsigned, const unsigned *, unsigned, int);
    std::vector<size_t> sizes;
    std::string name;
};

static std::recursive_mutex everything;
static std::condition_variable_any ran;
#define ALONE std::lock_guard<std::recursive_mutex> alone(everything)
static bool initialized, failed;
static std::vector<Stream *> streams;
static thread_local void *bound;
static int contexts[DEVICES];
static size_t allocated;
static std::map<u64, size_t> handles;
static std::map<void *, size_t> pinned;
static size_t all_pinned, most_pinned = SIZE_MAX;
static u64 next_handle = 1;

// Captures have the mode THREAD_LOCAL: a forbidden call by the thread that began one returns an error, and invalidates
// the capture.
static bool breaks(bool (*which)(Stream *, Stream *), Stream *with) {
    bool any = false;
    for (Stream *stream : streams)
        if (stream->capture && which(stream, with)) any = stream->invalidated = true;
    return any;
}
static bool everywhere(Stream *, Stream *) { return true; }
static bool this_threads_or_with(Stream *stream, Stream *with) { return stream == with || stream->by == std::this_thread::get_id(); }

// For calls that are forbidden to a thread that captures a step, and on a stream that is being captured.
#define NOT_IN_CAPTURE(stream) \
    if (breaks(this_threads_or_with, stream)) return CAPTURE_UNSUPPORTED;
// For calls that are forbidden while any thread captures a step.
#define NOT_IN_ANY_CAPTURE \
    if (breaks(everywhere, nullptr)) return CAPTURE_UNSUPPORTED;
#define IN_CONTEXT \
    if (!bound) return NO_CONTEXT;

static void ask(Stream *stream, Work work) {
    if (stream->capture) {
        stream->capture->work.push_back(std::move(work));
        return;
    }
    stream->waiting.push_back(std::move(work));
    ++stream->asked;
}
static void run_to(Stream *stream, u64 end) {
    while (stream->done < end && (stream->running || !stream->waiting.empty())) {
        // Another thread runs this stream's work, which itself waits for another stream.
        if (stream->running) {
            ran.wait(everything);
            continue;
        }
        Work work = std::move(stream->waiting.front());
        stream->waiting.pop_front();
        stream->running = true;
        work();
        stream->running = false;
        ++stream->done;
        ran.notify_all();
    }
}
static Result finish(Stream *stream) {
    run_to(stream, stream->asked);
    return failed ? LAUNCH_FAILED : SUCCESS;
}

API void stand_in_enqueue(void *stream, void (*work)(void *), void *data, void (*done)(void *)) {
    ALONE;
    std::shared_ptr<void> owned(data, [=](void *data) {
        if (done) done(data);
    });
    ask(static_cast<Stream *>(stream), [=] { work(owned.get()); });
}

API void stand_in_apart(void (*work)(void *), void *data) {
    everything.unlock();
    work(data);
    everything.lock();
}

// From now on the GPUs do nothing any more, as after an error of a kernel or of memory.
API void stand_in_fail() {
    ALONE;
    failed = true;
}

// From now on `more` bytes of host memory can be pinned beside those that are.
API void stand_in_pin(size_t more) {
    ALONE;
    most_pinned = more > SIZE_MAX - all_pinned ? SIZE_MAX : all_pinned + more;
}

API Result cuInit(unsigned) {
    initialized = true;
    return SUCCESS;
}
API Result cuDriverGetVersion(int *version) {
    *version = 12080;
    return SUCCESS;
}
API Result cuGetErrorString(Result error, const char **text) {
    *text = error == OUT_OF_MEMORY ? "out of memory" : error == CAPTURE_UNSUPPORTED ? "not permitted when a stream is capturing" : "stand-in";
    return SUCCESS;
}
API Result cuGetErrorName(Result, const char **text) {
    *text = "CUDA_ERROR";
    return SUCCESS;
}
API Result cuDeviceGetCount(int *count) {
    *count = DEVICES;
    return initialized ? SUCCESS : NOT_INITIALIZED;
}
API Result cuDeviceGet(int *device, int ordinal) {
    *device = ordinal;
    return !initialized ? NOT_INITIALIZED : ordinal >= 0 && ordinal < DEVICES ? SUCCESS : INVALID_DEVICE;
}
API Result cuDeviceGetName(char *name, int len, int) {
    snprintf(name, len, "a stand-in for a GPU");
    return SUCCESS;
}
API Result cuDeviceGetUuid(char *uuid, int device) {
    memset(uuid, device + 1, 16);
    return SUCCESS;
}
API Result cuDeviceGetUuid_v2(char *uuid, int device) { return cuDeviceGetUuid(uuid, device); }
API Result cuDeviceTotalMem_v2(size_t *bytes, int) {
    *bytes = TOTAL;
    return SUCCESS;
}
API Result cuDeviceGetAttribute(int *value, int attribute, int) {
    // Compute capability 9.0, virtual memory management, memory pools.
    *value = attribute == 75 ? 9 : attribute == 76 ? 0 : attribute == 102 || attribute == 115 ? 1 : 0;
    return SUCCESS;
}
API Result cuDevicePrimaryCtxRetain(void **context, int device) {
    *context = &contexts[device];
    return SUCCESS;
}
API Result cuDevicePrimaryCtxRelease_v2(int) { return SUCCESS; }
API Result cuCtxGetCurrent(void **context) {
    *context = bound;
    return SUCCESS;
}
API Result cuCtxSetCurrent(void *context) {
    bound = context;
    return SUCCESS;
}
API Result cuCtxSynchronize() {
    ALONE;
    IN_CONTEXT;
    NOT_IN_ANY_CAPTURE;
    for (Stream *stream : streams) finish(stream);
    return failed ? LAUNCH_FAILED : SUCCESS;
}
API Result cuMemGetInfo_v2(size_t *free, size_t *total) {
    IN_CONTEXT;
    *free = TOTAL - allocated;
    *total = TOTAL;
    return SUCCESS;
}

API Result cuStreamCreate(Stream **stream, unsigned) {
    ALONE;
    IN_CONTEXT;
    *stream = new Stream;
    streams.push_back(*stream);
    return SUCCESS;
}
API Result cuStreamDestroy_v2(Stream *stream) {
    ALONE;
    // Queued work is still done. The stream is not deleted: events may refer to it.
    return finish(stream);
}
API Result cuStreamSynchronize(Stream *stream) {
    ALONE;
    IN_CONTEXT;
    NOT_IN_CAPTURE(stream);
    return finish(stream);
}
API Result cuStreamWaitEvent(Stream *stream, Event *event, unsigned) {
    ALONE;
    IN_CONTEXT;
    if (stream->capture) {
        stream->invalidated = true;
        return CAPTURE_UNSUPPORTED;
    }
    Stream *other = event->stream;
    u64 at = event->at;
    if (other && other != stream) ask(stream, [=] { run_to(other, at); });
    return SUCCESS;
}
API Result cuStreamBeginCapture_v2(Stream *stream, int) {
    ALONE;
    IN_CONTEXT;
    NOT_IN_CAPTURE(stream);
    stream->capture = new Graph;
    stream->by = std::this_thread::get_id();
    stream->invalidated = false;
    return SUCCESS;
}
API Result cuStreamEndCapture(Stream *stream, Graph **graph) {
    ALONE;
    IN_CONTEXT;
    if (stream->by != std::this_thread::get_id()) return CAPTURE_WRONG_THREAD;
    *graph = stream->invalidated ? nullptr : stream->capture;
    stream->capture = nullptr;
    return *graph ? SUCCESS : CAPTURE_INVALIDATED;
}
API Result cuStreamIsCapturing(Stream *stream, int *status) {
    ALONE;
    *status = stream->capture ? 1 : 0;
    return SUCCESS;
}
API Result cuGraphInstantiateWithFlags(Graph **instance, Graph *graph, u64) {
    *instance = new Graph(*graph);
    return SUCCESS;
}
API Result cuGraphLaunch(Graph *graph, Stream *stream) {
    ALONE;
    IN_CONTEXT;
    for (const Work &work : graph->work) ask(stream, work);
    return SUCCESS;
}
API Result cuGraphExecDestroy(Graph *graph) {
    delete graph;
    return SUCCESS;
}
API Result cuGraphDestroy(Graph *graph) {
    delete graph;
    return SUCCESS;
}

API Result cuEventCreate(Event **event, unsigned) {
    IN_CONTEXT;
    *event = new Event;
    return SUCCESS;
}
API Result cuEventRecord(Event *event, Stream *stream) {
    ALONE;
    IN_CONTEXT;
    NOT_IN_CAPTURE(stream);
    event->stream = stream;
    event->at = stream->asked;
    return SUCCESS;
}
API Result cuEventSynchronize(Event *event) {
    ALONE;
    IN_CONTEXT;
    NOT_IN_CAPTURE(event->stream);
    if (event->stream) run_to(event->stream, event->at);
    return failed ? LAUNCH_FAILED : SUCCESS;
}
API Result cuEventDestroy_v2(Event *event) {
    delete event;
    return SUCCESS;
}

// An image comes from the stand-in for NVRTC: it is the path of a translated library.
API Result cuModuleLoadData(Module **module, const void *image) {
    ALONE;
    IN_CONTEXT;
    std::string text = static_cast<const char *>(image);
    const std::string mark = "EMULATED ";
    if (text.compare(0, mark.size(), mark) != 0) return INVALID_IMAGE;
    void *library = dlopen(text.c_str() + mark.size(), RTLD_NOW | RTLD_LOCAL);
    if (!library) return INVALID_IMAGE;
    *module = new Module{library};
    return SUCCESS;
}
API Result cuModuleGetFunction(Function **function, Module *module, const char *name) {
    ALONE;
    IN_CONTEXT;
    typedef unsigned (*Sizes)(size_t *);
    Sizes sizes = (Sizes)dlsym(module->library, ("emulated_sizes_" + std::string(name)).c_str());
    void *entry = dlsym(module->library, ("emulated_" + std::string(name)).c_str());
    if (!sizes || !entry) return NOT_FOUND;
    size_t of[32];
    unsigned count = sizes(of);
    *function = new Function{(decltype(Function::entry))entry, std::vector<size_t>(of, of + count), name};
    return SUCCESS;
}
API Result cuModuleUnload(Module *module) {
    delete module;
    return SUCCESS;
}
API Result cuLaunchKernel(Function *function, unsigned x, unsigned y, unsigned z, unsigned block, unsigned by, unsigned bz, unsigned shared,
                          Stream *stream, void **arguments, void **extra) {
    ALONE;
    IN_CONTEXT;
    if (!x || !y || !z || y > 65535 || z > 65535 || !block || block > 1024 || by != 1 || bz != 1 || shared || extra) return INVALID_VALUE;
    // Arguments are copied now, memory is read later.
    std::vector<std::shared_ptr<std::vector<char>>> copies;
    for (size_t i = 0; i < function->sizes.size(); ++i) {
        const char *from = static_cast<const char *>(arguments[i]);
        copies.push_back(std::make_shared<std::vector<char>>(from, from + function->sizes[i]));
    }
    ask(stream, [=] {
        std::vector<void *> places;
        for (const auto &copy : copies) places.push_back(copy->data());
        const unsigned grid[3] = {x, y, z};
        if (const char *problem = function->entry(places.data(), places.size(), grid, block, 0)) {
            fprintf(stderr, "%s: %s\n", function->name.c_str(), problem);
            failed = true;
        }
    });
    return SUCCESS;
}

API Result cuMemHostAlloc(void **start, size_t bytes, unsigned) {
    ALONE;
    IN_CONTEXT;
    NOT_IN_CAPTURE(nullptr);
    if (bytes > most_pinned || all_pinned > most_pinned - bytes) return OUT_OF_MEMORY;
    *start = malloc(bytes);
    pinned[*start] = bytes;
    all_pinned += bytes;
    return SUCCESS;
}
API Result cuMemFreeHost(void *start) {
    ALONE;
    IN_CONTEXT;
    auto found = pinned.find(start);
    if (found == pinned.end()) return INVALID_VALUE;
    all_pinned -= found->second;
    pinned.erase(found);
    free(start);
    return SUCCESS;
}
// Host memory of copies must be pinned: otherwise they would not be asynchronous.
static bool is_pinned(const void *start, size_t bytes) {
    auto after = pinned.upper_bound(const_cast<void *>(start));
    if (after == pinned.begin()) return false;
    --after;
    return (const char *)start + bytes <= (const char *)after->first + after->second;
}
API Result cuMemcpyHtoDAsync_v2(u64 to, const void *from, size_t bytes, Stream *stream) {
    ALONE;
    IN_CONTEXT;
    if (!is_pinned(from, bytes)) return INVALID_VALUE;
    ask(stream, [=] { memcpy((void *)to, from, bytes); });
    return SUCCESS;
}
API Result cuMemcpyDtoHAsync_v2(void *to, u64 from, size_t bytes, Stream *stream) {
    ALONE;
    IN_CONTEXT;
    if (!is_pinned(to, bytes)) return INVALID_VALUE;
    ask(stream, [=] { memcpy(to, (void *)from, bytes); });
    return SUCCESS;
}
API Result cuMemcpyDtoDAsync_v2(u64 to, u64 from, size_t bytes, Stream *stream) {
    ALONE;
    IN_CONTEXT;
    ask(stream, [=] { memcpy((void *)to, (void *)from, bytes); });
    return SUCCESS;
}
API Result cuMemsetD8Async(u64 to, u8 value, size_t bytes, Stream *stream) {
    ALONE;
    IN_CONTEXT;
    ask(stream, [=] { memset((void *)to, value, bytes); });
    return SUCCESS;
}

API Result cuMemGetAllocationGranularity(size_t *granule, const void *, int) {
    *granule = GRANULE;
    return SUCCESS;
}
API Result cuMemAddressReserve(u64 *start, size_t bytes, size_t alignment, u64, u64) {
    ALONE;
    IN_CONTEXT;
    if (bytes % GRANULE || alignment > GRANULE) return INVALID_VALUE;
    char *got = (char *)mmap(nullptr, bytes + GRANULE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (got == MAP_FAILED) return OUT_OF_MEMORY;
    *start = ((u64)got + GRANULE - 1) / GRANULE * GRANULE;
    return SUCCESS;
}
API Result cuMemAddressFree(u64 start, size_t bytes) { return munmap((void *)start, bytes) ? INVALID_VALUE : SUCCESS; }
API Result cuMemCreate(u64 *handle, size_t bytes, const void *, u64) {
    ALONE;
    IN_CONTEXT;
    NOT_IN_CAPTURE(nullptr);
    if (bytes % GRANULE) return INVALID_VALUE;
    if (allocated + bytes > TOTAL) return OUT_OF_MEMORY;
    allocated += bytes;
    *handle = next_handle++;
    handles[*handle] = bytes;
    return SUCCESS;
}
API Result cuMemRelease(u64 handle) {
    ALONE;
    auto found = handles.find(handle);
    if (found == handles.end()) return INVALID_VALUE;
    allocated -= found->second;
    handles.erase(found);
    return SUCCESS;
}
API Result cuMemMap(u64, size_t bytes, size_t, u64 handle, u64) {
    ALONE;
    auto found = handles.find(handle);
    return found != handles.end() && found->second == bytes ? SUCCESS : INVALID_VALUE;
}
API Result cuMemSetAccess(u64 start, size_t bytes, const void *, size_t) {
    if (mprotect((void *)start, bytes, PROT_READ | PROT_WRITE)) return INVALID_VALUE;
    // Memory begins as NaN.
    memset((void *)start, 0xff, bytes);
    return SUCCESS;
}
API Result cuMemUnmap(u64 start, size_t bytes) {
    madvise((void *)start, bytes, MADV_DONTNEED);
    return mprotect((void *)start, bytes, PROT_NONE) ? INVALID_VALUE : SUCCESS;
}

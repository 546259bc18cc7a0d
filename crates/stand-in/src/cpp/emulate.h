// Makes the kernels compile as C++, and runs their blocks on the CPU: each thread of a block is a fiber, which runs
// until it comes to a barrier. Blocks run one after another.
//
// Stricter than a GPU where that finds mistakes: shared memory begins as NaN in every block, every thread of a block
// must come to each barrier and every lane of a warp to each shuffle, and threads and blocks can run in other orders,
// which must not change a bit of the results.

#include <setjmp.h>
#include <ucontext.h>

#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <type_traits>
#include <utility>
#include <vector>

#define EMULATED
#define DEVICE inline __attribute__((unused))
#define SHARED static __attribute__((section("emulated_shared")))
// The first launch bound is the maximum number of threads of a block.
#define KERNEL(bounds, name)                         \
    static const unsigned bounds_of_##name[] = {bounds}; \
    static void name

// The beginning and the end of shared memory, which the linker defines; null in a library without any.
extern "C" {
extern char __start_emulated_shared[] __attribute__((weak, visibility("hidden")));
extern char __stop_emulated_shared[] __attribute__((weak, visibility("hidden")));
}

namespace emulated {

struct Triple {
    unsigned x, y, z;
};

enum class State { READY, AT_BLOCK, AT_WARP, DONE };

struct Thread {
    // Where the thread continues, if its fiber has begun.
    jmp_buf place;
    bool begun;
    State state;
    // Data for the other lanes of its warp.
    unsigned char shown[48];
};

constexpr size_t STACK = 64 << 10;
constexpr unsigned WARP_SIZE = 32;

static std::vector<Thread> threads;
static std::vector<char> stacks;
static jmp_buf scheduler;
static unsigned current;
static void (*entry)(void *);
static void *entry_data;

}  // namespace emulated

static emulated::Triple threadIdx, blockIdx, blockDim, gridDim;

namespace emulated {

// Switches to the scheduler, until it resumes the thread. Not with swapcontext: it makes a system call for the signal
// mask each time, which takes longer than most kernels' work between two barriers.
static void leave(State state) {
    threads[current].state = state;
    if (!_setjmp(threads[current].place)) _longjmp(scheduler, 1);
}

static void wait_at(State barrier) { leave(barrier); }

// The body of a fiber, which is the same thread of one block after another.
static void begin() {
    for (;;) {
        entry(entry_data);
        leave(State::DONE);
    }
}

// Runs the current thread until it leaves.
static void go_on() {
    if (_setjmp(scheduler)) return;
    Thread &thread = threads[current];
    if (thread.begun) _longjmp(thread.place, 1);
    thread.begun = true;
    static ucontext_t context;
    getcontext(&context);
    context.uc_stack.ss_sp = stacks.data() + current * STACK;
    context.uc_stack.ss_size = STACK;
    context.uc_link = nullptr;
    makecontext(&context, begin, 0);
    setcontext(&context);
}

// Restarts all fibers. Those that were in the middle of a kernel abandon it.
static void begin_anew() {
    for (Thread &thread : threads) thread.begun = false;
}

template <class V> inline V exchanged(V value, unsigned lane) {
    static_assert(sizeof(V) <= sizeof(Thread::shown), "");
    std::memcpy(threads[threadIdx.x].shown, &value, sizeof(V));
    wait_at(State::AT_WARP);
    std::memcpy(&value, threads[threadIdx.x / WARP_SIZE * WARP_SIZE + lane].shown, sizeof(V));
    wait_at(State::AT_WARP);
    return value;
}

// c += a b as on a warp's tensor cores, for 16-bit values in pairs: a is 16 x 16, b is 16 x 8, c is 16 x 8. Every lane
// computes its four values of c, one term after the other, from the data of the other lanes.
template <class Widen> inline void multiply_add(float (&c)[4], const unsigned (&a)[4], const unsigned (&b)[2], Widen widen) {
    // The values of a, then those of b, in the order of the lane's registers.
    float own[12];
    static_assert(sizeof(own) <= sizeof(Thread::shown), "");
    for (unsigned i = 0; i < 12; ++i) own[i] = widen((uint16_t)((i < 8 ? a[i / 2] : b[i / 2 - 4]) >> i % 2 * 16));
    std::memcpy(threads[threadIdx.x].shown, own, sizeof(own));
    wait_at(State::AT_WARP);
    const unsigned lane = threadIdx.x % WARP_SIZE, first = threadIdx.x - lane;
    for (unsigned i = 0; i < 4; ++i) {
        const unsigned row = lane / 4 + i / 2 * 8, column = lane % 4 * 2 + i % 2;
        for (unsigned k = 0; k < 16; ++k) {
            const unsigned late = k / 8, t = k % 8 / 2;
            float left, right;
            std::memcpy(&left, threads[first + row % 8 * 4 + t].shown + 4 * (2 * (row / 8 + 2 * late) + k % 2), sizeof(left));
            std::memcpy(&right, threads[first + column * 4 + t].shown + 4 * (8 + 2 * late + k % 2), sizeof(right));
            c[i] += left * right;
        }
    }
    wait_at(State::AT_WARP);
}

// Releases the threads whose barrier is complete; returns whether there were any.
static bool release(unsigned count) {
    unsigned waiting = 0;
    bool released = false;
    for (unsigned i = 0; i < count; ++i) waiting += threads[i].state == State::AT_BLOCK;
    if (waiting == count) {
        for (unsigned i = 0; i < count; ++i) threads[i].state = State::READY;
        return true;
    }
    for (unsigned first = 0; first < count; first += WARP_SIZE) {
        unsigned lanes = 0;
        for (unsigned i = first; i < first + WARP_SIZE; ++i) lanes += threads[i].state == State::AT_WARP;
        if (lanes != WARP_SIZE) continue;
        for (unsigned i = first; i < first + WARP_SIZE; ++i) threads[i].state = State::READY;
        released = true;
    }
    return released;
}

// The number of the thread or block that runs i-th of count: in order, backwards, or scrambled.
static unsigned place(unsigned i, unsigned count, int order) {
    if (order == 1) return count - 1 - i;
    if (order == 2) return (unsigned)(((uint64_t)i * 2654435761u + 12345u) % count);
    return i;
}

static bool permutes(unsigned count, int order) {
    if (order != 2) return true;
    std::vector<char> seen(count, 0);
    for (unsigned i = 0; i < count; ++i) seen[place(i, count, order)] = 1;
    for (char s : seen)
        if (!s) return false;
    return true;
}

static const char *run_block(unsigned count, int order) {
    size_t shared = __start_emulated_shared ? __stop_emulated_shared - __start_emulated_shared : 0;
    if (shared) std::memset(__start_emulated_shared, 0xff, shared);
    for (unsigned i = 0; i < count; ++i) threads[i].state = State::READY;
    for (;;) {
        bool all_done = true;
        for (unsigned i = 0; i < count; ++i) {
            current = place(i, count, order);
            if (threads[current].state == State::READY) {
                threadIdx = {current, 0, 0};
                go_on();
            }
            all_done = all_done && threads[current].state == State::DONE;
        }
        if (all_done) return nullptr;
        bool ready = false;
        for (unsigned i = 0; i < count; ++i) ready = ready || threads[i].state == State::READY;
        if (!ready && !release(count)) {
            begin_anew();
            return "threads of a block or lanes of a warp do not come to the same barrier";
        }
    }
}

// With order CORNERS, a grid of more than FEW blocks runs only those at its corners.
constexpr int CORNERS = 3;
constexpr unsigned FEW = 1000;

static const char *run_corners(const unsigned *grid, unsigned count) {
    for (unsigned corner = 0; corner < 8; ++corner) {
        const unsigned far[] = {corner & 1, corner >> 1 & 1, corner >> 2 & 1};
        // In a dimension with one block, the first is also the last: run it once.
        bool twice = false;
        for (unsigned i = 0; i < 3; ++i) twice = twice || (far[i] && grid[i] == 1);
        if (twice) continue;
        blockIdx = {far[0] * (grid[0] - 1), far[1] * (grid[1] - 1), far[2] * (grid[2] - 1)};
        if (const char *problem = run_block(count, 0)) return problem;
    }
    return nullptr;
}

static const char *run(const unsigned *grid, unsigned count, int order) {
    if (count == 0 || count % WARP_SIZE != 0 || count > 1024) return "a block must be whole warps, of at most 1024 threads";
    if (threads.size() < count) {
        threads.resize(count);
        stacks.resize(count * STACK);
        // The stacks have moved.
        begin_anew();
    }
    gridDim = {grid[0], grid[1], grid[2]};
    blockDim = {count, 1, 1};
    if (order == CORNERS) {
        if ((uint64_t)grid[0] * grid[1] * grid[2] > FEW) return run_corners(grid, count);
        order = 0;
    }
    unsigned blocks = grid[0] * grid[1] * grid[2];
    int of_threads = permutes(count, order) ? order : 1, of_blocks = permutes(blocks, order) ? order : 1;
    for (unsigned i = 0; i < blocks; ++i) {
        unsigned block = place(i, blocks, of_blocks);
        blockIdx = {block % grid[0], block / grid[0] % grid[1], block / grid[0] / grid[1]};
        if (const char *problem = run_block(count, of_threads)) return problem;
    }
    return nullptr;
}

template <class... A, size_t... I> void call(void (*kernel)(A...), void **arguments, std::index_sequence<I...>) {
    kernel(*static_cast<std::remove_const_t<A> *>(arguments[I])...);
}

template <class... A>
const char *launch(void (*kernel)(A...), void **arguments, unsigned given, const unsigned *grid, unsigned threads, int order) {
    if (given != sizeof...(A)) return "the number of arguments is wrong";
    auto body = [=] { call(kernel, arguments, std::index_sequence_for<A...>()); };
    using Body = decltype(body);
    entry = [](void *data) { (*static_cast<Body *>(data))(); };
    entry_data = &body;
    return run(grid, threads, order);
}

template <class To, class From> inline To bits(From from) {
    static_assert(sizeof(To) == sizeof(From), "");
    To to;
    std::memcpy(&to, &from, sizeof(To));
    return to;
}

}  // namespace emulated

// The sizes of a kernel's arguments.
namespace emulated {
template <class... A> unsigned sizes(void (*)(A...), size_t *out) {
    const size_t all[] = {sizeof(A)...};
    for (size_t i = 0; i < sizeof...(A); ++i) out[i] = all[i];
    return sizeof...(A);
}
}  // namespace emulated

// The functions that tests call; appended for each kernel.
#define EXPORT(name)                                                                                                       \
    extern "C" __attribute__((visibility("default"))) unsigned emulated_sizes_##name(size_t *sizes) {                      \
        return emulated::sizes(&name, sizes);                                                                              \
    }                                                                                                                      \
    extern "C" __attribute__((visibility("default"))) const char *emulated_##name(void **arguments, unsigned given,        \
                                                                                  const unsigned *grid, unsigned threads,  \
                                                                                  int order) {                             \
        if (threads > bounds_of_##name[0]) return "there are more threads in a block than it was compiled for";                    \
        return emulated::launch(&name, arguments, given, grid, threads, order);                                            \
    }

#define __syncthreads() emulated::wait_at(emulated::State::AT_BLOCK)
#define __syncwarp() emulated::wait_at(emulated::State::AT_WARP)
#define __shfl_xor_sync(mask, value, step) emulated::exchanged(value, (threadIdx.x % emulated::WARP_SIZE) ^ (unsigned)(step))
#define __int_as_float(x) emulated::bits<float>((int)(x))
#define __uint_as_float(x) emulated::bits<float>((unsigned)(x))
#define __float_as_uint(x) emulated::bits<unsigned>((float)(x))

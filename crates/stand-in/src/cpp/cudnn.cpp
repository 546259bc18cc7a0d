// cuDNN's convolutions, computed by their definition, channels last, summed in f64.

#include <chrono>
#include <thread>

typedef int Status;
constexpr Status SUCCESS = 0, BAD_PARAM = 2000, NOT_SUPPORTED = 3000, EXECUTION_FAILED = 5000;

struct Handle {
    void *stream;
};
struct Tensor {
    int type, n, h, w, c;
};
struct Convolution {
    int padding, stride, math;
};
struct Timed {
    int algorithm, status;
    float time;
    size_t memory;
    int determinism, math, reserved[3];
};
// The workspace of algorithm 1.
constexpr size_t ROOM = 4096;

static int type_of(int type) { return type == 0 ? 0 : type == 9 ? 1 : type == 2 ? 2 : -1; }

API size_t cudnnGetVersion() { return 91002; }
API size_t cudnnGetCudartVersion() { return 12090; }
API Status cudnnCreate(Handle **handle) {
    *handle = new Handle{nullptr};
    return SUCCESS;
}
API Status cudnnDestroy(Handle *handle) {
    // Waits for the whole GPU, as cuDNN does.
    if (cuCtxSynchronize()) return EXECUTION_FAILED;
    delete handle;
    return SUCCESS;
}
API Status cudnnSetStream(Handle *handle, void *stream) {
    handle->stream = stream;
    return SUCCESS;
}
API Status cudnnCreateTensorDescriptor(Tensor **tensor) {
    *tensor = new Tensor{};
    return SUCCESS;
}
API Status cudnnCreateFilterDescriptor(Tensor **filter) { return cudnnCreateTensorDescriptor(filter); }
API Status cudnnDestroyTensorDescriptor(Tensor *tensor) {
    delete tensor;
    return SUCCESS;
}
API Status cudnnDestroyFilterDescriptor(Tensor *filter) { return cudnnDestroyTensorDescriptor(filter); }
API Status cudnnSetTensor4dDescriptor(Tensor *tensor, int format, int type, int n, int c, int h, int w) {
    *tensor = Tensor{type_of(type), n, h, w, c};
    return format == 1 && tensor->type >= 0 ? SUCCESS : NOT_SUPPORTED;
}
API Status cudnnSetFilter4dDescriptor(Tensor *filter, int type, int format, int k, int c, int h, int w) {
    return cudnnSetTensor4dDescriptor(filter, format, type, k, c, h, w);
}
API Status cudnnCreateConvolutionDescriptor(Convolution **convolution) {
    *convolution = new Convolution{};
    return SUCCESS;
}
API Status cudnnDestroyConvolutionDescriptor(Convolution *convolution) {
    delete convolution;
    return SUCCESS;
}
API Status cudnnSetConvolution2dDescriptor(Convolution *convolution, int pad_h, int pad_w, int u, int v, int dilation_h, int dilation_w, int mode,
                                           int type) {
    convolution->padding = pad_h;
    convolution->stride = u;
    return pad_h == pad_w && u == v && dilation_h == 1 && dilation_w == 1 && mode == 1 && type == 0 ? SUCCESS : NOT_SUPPORTED;
}
API Status cudnnSetConvolutionMathType(Convolution *convolution, int math) {
    convolution->math = math;
    return SUCCESS;
}

static Status fits(const Tensor *x, const Tensor *w, const Convolution *c, const Tensor *y) {
    int height = (x->h + 2 * c->padding - w->h) / c->stride + 1, width = (x->w + 2 * c->padding - w->w) / c->stride + 1;
    bool same = x->type == w->type && x->type == y->type && x->n == y->n && w->n == y->c && w->c == x->c;
    return same && y->h == height && y->w == width ? SUCCESS : BAD_PARAM;
}

enum Pass { FORWARD, DATA, FILTER };
struct Job {
    Pass pass;
    Tensor x, w, y;
    Convolution convolution;
    const void *first, *second;
    void *out, *room;
    size_t size;
    // Whether the result is added to the old values.
    bool add;
    // Whether to write garbage, as a search does.
    bool search;
    // Whether to give other bits every second time.
    bool wavers;
    // A factor by which the result is wrong.
    double factor = 1.0;
};

static void run(void *data) {
    const Job &job = *static_cast<const Job *>(data);
    const Tensor &x = job.x, &w = job.w, &y = job.y;
    if (job.room) memset(job.room, 0x5a, job.size);
    const Tensor &to = job.pass == FORWARD ? y : job.pass == DATA ? x : w;
    std::vector<double> sum((size_t)to.n * to.h * to.w * to.c, 0.0);
    int stride = job.convolution.stride, padding = job.convolution.padding;
    // Slow down convolutions that are matrix products, so that the product is the faster route.
    if (w.h * w.w * stride == 1 && padding == 0) std::this_thread::sleep_for(std::chrono::milliseconds(5));
    for (int n = 0; n < y.n; ++n)
        for (int p = 0; p < y.h; ++p)
            for (int q = 0; q < y.w; ++q)
                for (int r = 0; r < w.h; ++r)
                    for (int s = 0; s < w.w; ++s) {
                        int h = p * stride + r - padding, v = q * stride + s - padding;
                        if (h < 0 || v < 0 || h >= x.h || v >= x.w) continue;
                        for (int k = 0; k < y.c; ++k) {
                            size_t of_y = (((size_t)n * y.h + p) * y.w + q) * y.c + k;
                            for (int c = 0; c < x.c; ++c) {
                                size_t of_x = (((size_t)n * x.h + h) * x.w + v) * x.c + c, of_w = (((size_t)k * w.h + r) * w.w + s) * w.c + c;
                                if (job.pass == FORWARD) sum[of_y] += (double)value_at(job.first, x.type, of_x) * value_at(job.second, w.type, of_w);
                                else if (job.pass == DATA) sum[of_x] += (double)value_at(job.first, w.type, of_w) * value_at(job.second, y.type, of_y);
                                else sum[of_w] += (double)value_at(job.first, x.type, of_x) * value_at(job.second, y.type, of_y);
                            }
                        }
                    }
    static unsigned runs;
    double factor = job.wavers && ++runs % 2 ? job.factor * (1.0 + 1e-6) : job.factor;
    for (size_t i = 0; i < sum.size(); ++i) {
        sum[i] *= factor;
        if (job.add) sum[i] += value_at(job.out, to.type, i);
        set_value(job.out, to.type, i, job.search ? 12345.0f : (float)sum[i]);
    }
}

static Status enqueue(Handle *handle, const Job &job) {
    if (Status wrong = fits(&job.x, &job.w, &job.convolution, &job.y)) return wrong;
    stand_in_enqueue(handle->stream, run, new Job(job), nullptr);
    return SUCCESS;
}

// Algorithm 1 is the fastest but not deterministic for filters; 0 always works; 2 never does.
static void time_all(const Convolution *convolution, bool filter, int *count, Timed *timed) {
    timed[0] = Timed{1, SUCCESS, 1.0f, ROOM, filter ? 0 : 1, convolution->math, {}};
    timed[1] = Timed{0, SUCCESS, 2.0f, 0, 1, convolution->math, {}};
    timed[2] = Timed{2, NOT_SUPPORTED, -1.0f, 0, 1, convolution->math, {}};
    *count = 3;
}
static Status room_of(int algorithm, size_t *size) {
    *size = algorithm == 1 ? ROOM : 0;
    return algorithm <= 1 ? SUCCESS : NOT_SUPPORTED;
}
static Status check_room(int algorithm, size_t size) { return algorithm > 1 || (algorithm == 1 && size < ROOM) ? NOT_SUPPORTED : SUCCESS; }

API Status cudnnFindConvolutionForwardAlgorithmEx(Handle *handle, Tensor *x, const void *x_data, Tensor *w, const void *w_data, Convolution *c,
                                                  Tensor *y, void *y_data, int most, int *count, Timed *timed, void *room, size_t size) {
    if (most < 3) return BAD_PARAM;
    time_all(c, false, count, timed);
    return enqueue(handle, Job{FORWARD, *x, *w, *y, *c, x_data, w_data, y_data, room, size, false, true, false});
}
API Status cudnnFindConvolutionBackwardDataAlgorithmEx(Handle *handle, Tensor *w, const void *w_data, Tensor *y, const void *y_data, Convolution *c,
                                                       Tensor *x, void *x_data, int most, int *count, Timed *timed, void *room, size_t size) {
    if (most < 3) return BAD_PARAM;
    time_all(c, false, count, timed);
    return enqueue(handle, Job{DATA, *x, *w, *y, *c, w_data, y_data, x_data, room, size, false, true, false});
}
API Status cudnnFindConvolutionBackwardFilterAlgorithmEx(Handle *handle, Tensor *x, const void *x_data, Tensor *y, const void *y_data, Convolution *c,
                                                         Tensor *w, void *w_data, int most, int *count, Timed *timed, void *room, size_t size) {
    if (most < 3) return BAD_PARAM;
    time_all(c, true, count, timed);
    return enqueue(handle, Job{FILTER, *x, *w, *y, *c, x_data, y_data, w_data, room, size, false, true, false});
}
API Status cudnnGetConvolutionForwardWorkspaceSize(Handle *, Tensor *x, Tensor *w, Convolution *c, Tensor *y, int algorithm, size_t *size) {
    Status wrong = fits(x, w, c, y);
    return wrong ? wrong : room_of(algorithm, size);
}
API Status cudnnGetConvolutionBackwardDataWorkspaceSize(Handle *, Tensor *w, Tensor *y, Convolution *c, Tensor *x, int algorithm, size_t *size) {
    Status wrong = fits(x, w, c, y);
    return wrong ? wrong : room_of(algorithm, size);
}
API Status cudnnGetConvolutionBackwardFilterWorkspaceSize(Handle *, Tensor *x, Tensor *y, Convolution *c, Tensor *w, int algorithm, size_t *size) {
    Status wrong = fits(x, w, c, y);
    return wrong ? wrong : room_of(algorithm, size);
}
static bool plain(const void *alpha, const void *beta) {
    float old = *(const float *)beta;
    return *(const float *)alpha == 1.0f && (old == 0.0f || old == 1.0f);
}
API Status cudnnConvolutionForward(Handle *handle, const void *alpha, Tensor *x, const void *x_data, Tensor *w, const void *w_data, Convolution *c,
                                   int algorithm, void *room, size_t size, const void *beta, Tensor *y, void *y_data) {
    if (!plain(alpha, beta) || check_room(algorithm, size)) return NOT_SUPPORTED;
    return enqueue(handle, Job{FORWARD, *x, *w, *y, *c, x_data, w_data, y_data, room, size, *(const float *)beta == 1.0f, false, false});
}
API Status cudnnConvolutionBackwardData(Handle *handle, const void *alpha, Tensor *w, const void *w_data, Tensor *y, const void *y_data,
                                        Convolution *c, int algorithm, void *room, size_t size, const void *beta, Tensor *x, void *x_data) {
    if (!plain(alpha, beta) || check_room(algorithm, size)) return NOT_SUPPORTED;
    return enqueue(handle, Job{DATA, *x, *w, *y, *c, w_data, y_data, x_data, room, size, *(const float *)beta == 1.0f, false, false});
}
API Status cudnnConvolutionBackwardFilter(Handle *handle, const void *alpha, Tensor *x, const void *x_data, Tensor *y, const void *y_data,
                                          Convolution *c, int algorithm, void *room, size_t size, const void *beta, Tensor *w, void *w_data) {
    if (!plain(alpha, beta) || check_room(algorithm, size)) return NOT_SUPPORTED;
    return enqueue(handle, Job{FILTER, *x, *w, *y, *c, x_data, y_data, w_data, room, size, *(const float *)beta == 1.0f, false, algorithm == 1});
}

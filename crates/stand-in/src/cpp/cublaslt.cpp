// cuBLASLt's product of column-major matrices: D = A B + C with an epilogue, by several algorithms.

#include <chrono>
#include <thread>

typedef int Status;
constexpr Status SUCCESS = 0, INVALID_VALUE = 7, EXECUTION_FAILED = 13, NOT_SUPPORTED = 15;

struct Layout {
    int type;
    u64 rows, columns;
    i64 pitch;
};
struct Description {
    // Whether values of f32 are rounded to tf32.
    bool tf32 = false;
    int transposed[2] = {0, 0}, epilogue = 1;
    u64 bias = 0;
};
struct Preference {
    size_t room = 0;
    unsigned schemes = 7, alignments[4] = {256, 256, 256, 256};
};
struct Algorithm {
    u64 data[8];
};
struct Proposal {
    Algorithm algorithm;
    size_t room;
    int status;
    float waves;
    int reserved[4];
};

API size_t cublasLtGetVersion() { return 120803; }
API Status cublasLtCreate(void **handle) {
    *handle = new int;
    return SUCCESS;
}
// Assumed to wait for the whole GPU, as cuBLAS does.
API Status cublasLtDestroy(void *) { return cuCtxSynchronize() ? EXECUTION_FAILED : SUCCESS; }
API Status cublasLtMatrixLayoutCreate(Layout **layout, int type, u64 rows, u64 columns, i64 pitch) {
    int of = type == 0 ? 0 : type == 14 ? 1 : type == 2 ? 2 : -1;
    *layout = new Layout{of, rows, columns, pitch};
    return of >= 0 && (u64)pitch >= rows ? SUCCESS : NOT_SUPPORTED;
}
API Status cublasLtMatrixLayoutDestroy(Layout *layout) {
    delete layout;
    return SUCCESS;
}
API Status cublasLtMatmulDescCreate(Description **description, int compute, int scale) {
    *description = new Description{compute == 77};
    return (compute == 68 || compute == 77) && scale == 0 ? SUCCESS : NOT_SUPPORTED;
}
API Status cublasLtMatmulDescDestroy(Description *description) {
    delete description;
    return SUCCESS;
}
API Status cublasLtMatmulDescSetAttribute(Description *description, int attribute, const void *value, size_t size) {
    if (attribute == 3 && size == 4) description->transposed[0] = *(const int *)value;
    else if (attribute == 4 && size == 4) description->transposed[1] = *(const int *)value;
    else if (attribute == 7 && size == 4) description->epilogue = *(const int *)value;
    else if (attribute == 8 && size == 8) description->bias = *(const u64 *)value;
    else return INVALID_VALUE;
    return SUCCESS;
}
API Status cublasLtMatmulPreferenceCreate(Preference **preference) {
    *preference = new Preference;
    return SUCCESS;
}
API Status cublasLtMatmulPreferenceDestroy(Preference *preference) {
    delete preference;
    return SUCCESS;
}
API Status cublasLtMatmulPreferenceSetAttribute(Preference *preference, int attribute, const void *value, size_t size) {
    if (attribute == 1 && size == 8) preference->room = *(const size_t *)value;
    else if (attribute == 3 && size == 4) preference->schemes = *(const unsigned *)value;
    else if (attribute >= 5 && attribute <= 8 && size == 4) preference->alignments[attribute - 5] = *(const unsigned *)value;
    else return INVALID_VALUE;
    return SUCCESS;
}

// Kinds of algorithms, in `data[0]`; the rest of `data` holds the alignments that the heuristic was given.
enum Kind : u64 {
    // Works, but slowly.
    SLOW = 42,
    // Not deterministic, like adding partial sums to the result in any order: gives other bits every second time.
    INPLACE,
    // Sums two halves separately; needs ROOM bytes of workspace.
    SPLIT,
    // Is rejected when it is run.
    BROKEN,
    AFTER_THE_LAST,
};
constexpr size_t ROOM = 4096;
constexpr unsigned SCHEME_INPLACE = 1, SCHEME_COMPUTE = 2;

struct Job {
    Layout a, b, d;
    Description description;
    const void *of_a, *of_b;
    void *of_d, *room;
    size_t size;
    Kind kind;
    bool add;
};
static Status fits(const Job &job) {
    u64 rows = job.description.transposed[0] ? job.a.columns : job.a.rows, inner = job.description.transposed[0] ? job.a.rows : job.a.columns;
    u64 other = job.description.transposed[1] ? job.b.columns : job.b.rows, columns = job.description.transposed[1] ? job.b.rows : job.b.columns;
    bool known = job.description.epilogue == 1 || ((job.description.epilogue == 4 || job.description.epilogue == 6) && job.description.bias);
    bool typed = job.a.type == job.b.type && (job.d.type == job.a.type || job.d.type == 0);
    return rows == job.d.rows && columns == job.d.columns && inner == other && known && typed ? SUCCESS : INVALID_VALUE;
}
// An operand as tensor cores read it: of an f32 value for tf32 the nearest with 10 bits of fraction, or the farther from 0.
static double operand(const Job &job, const void *from, int type, u64 at) {
    float value = value_at(from, type, at);
    u32 bits = __float_as_uint(value);
    bool rounds = job.description.tf32 && type == 0 && (bits & 0x7f800000) != 0x7f800000;
    return rounds ? __uint_as_float((bits + 0x1000) & ~0x1fffu) : value;
}
static void run(void *data) {
    const Job &job = *static_cast<const Job *>(data);
    static unsigned runs;
    if (job.kind == SLOW) std::this_thread::sleep_for(std::chrono::milliseconds(5));
    if (job.room) memset(job.room, 0x5a, job.size);
    double factor = job.kind == INPLACE && ++runs % 2 ? 1.0 + 1e-6 : 1.0;
    u64 inner = job.description.transposed[0] ? job.a.rows : job.a.columns, half = job.kind == SPLIT ? inner / 2 : inner;
    for (u64 i = 0; i < job.d.rows; ++i)
        for (u64 j = 0; j < job.d.columns; ++j) {
            double sums[2] = {0.0, 0.0};
            for (u64 k = 0; k < inner; ++k) {
                u64 of_a = job.description.transposed[0] ? k + i * job.a.pitch : i + k * job.a.pitch;
                u64 of_b = job.description.transposed[1] ? j + k * job.b.pitch : k + j * job.b.pitch;
                sums[k >= half] += operand(job, job.of_a, job.a.type, of_a) * operand(job, job.of_b, job.b.type, of_b);
            }
            double sum = job.kind == SPLIT ? (double)((float)sums[0] + (float)sums[1]) : sums[0] * factor;
            u64 to = i + j * job.d.pitch;
            if (job.add) sum += value_at(job.of_d, job.d.type, to);
            // A value of the bias for each row of D.
            if (job.description.epilogue & 4) sum += value_at((const void *)job.description.bias, job.d.type, i);
            if ((job.description.epilogue & 2) && sum < 0.0) sum = 0.0;
            set_value(job.of_d, job.d.type, to, (float)sum);
        }
}

API Status cublasLtMatmulAlgoGetHeuristic(void *, Description *description, Layout *a, Layout *b, Layout *c, Layout *d, Preference *preference,
                                          int wanted, Proposal *proposals, int *count) {
    if (wanted < 1 || c != d) return INVALID_VALUE;
    if (Status wrong = fits(Job{*a, *b, *d, *description, nullptr, nullptr, nullptr, nullptr, 0, SLOW, false})) return wrong;
    const unsigned *of = preference->alignments;
    *count = 0;
    for (u64 kind = SLOW; kind < AFTER_THE_LAST && *count < wanted; ++kind) {
        if (kind == INPLACE && !(preference->schemes & SCHEME_INPLACE)) continue;
        if (kind == SPLIT && (!(preference->schemes & SCHEME_COMPUTE) || preference->room < ROOM)) continue;
        size_t room = kind == SPLIT ? ROOM : 0;
        proposals[(*count)++] = Proposal{{{kind, of[0], of[1], of[2], of[3]}}, room, SUCCESS, 1.0f, {}};
    }
    return SUCCESS;
}
// Like the library, this does not fill in the result's algorithm.
API Status cublasLtMatmulAlgoCheck(void *, Description *description, Layout *a, Layout *b, Layout *c, Layout *d, const Algorithm *algorithm,
                                   Proposal *result) {
    u64 kind = algorithm->data[0];
    if (c != d || kind < SLOW || kind >= AFTER_THE_LAST) return INVALID_VALUE;
    if (Status wrong = fits(Job{*a, *b, *d, *description, nullptr, nullptr, nullptr, nullptr, 0, SLOW, false})) return wrong;
    result->room = kind == SPLIT ? ROOM : 0;
    result->status = SUCCESS;
    return SUCCESS;
}
API Status cublasLtMatmul(void *, Description *description, const void *alpha, const void *of_a, Layout *a, const void *of_b, Layout *b,
                          const void *beta, const void *of_c, Layout *c, void *of_d, Layout *d, const Algorithm *algorithm, void *room, size_t size,
                          void *stream) {
    const u64 *of = algorithm->data;
    float old = *(const float *)beta;
    if (*(const float *)alpha != 1.0f || (old != 0.0f && old != 1.0f) || of[0] < SLOW || of[0] >= BROKEN) return NOT_SUPPORTED;
    // In place: the same memory, described by the same layout.
    if (of_c != of_d || c != d) return INVALID_VALUE;
    if ((u64)of_a % of[1] || (u64)of_b % of[2] || (u64)of_c % of[3] || (u64)of_d % of[4] || (u64)room % 256) return INVALID_VALUE;
    if (of[0] == SPLIT && size < ROOM) return INVALID_VALUE;
    Job job{*a, *b, *d, *description, of_a, of_b, of_d, room, size, (Kind)of[0], old == 1.0f};
    if (Status wrong = fits(job)) return wrong;
    stand_in_enqueue(stream, run, new Job(job), nullptr);
    return SUCCESS;
}

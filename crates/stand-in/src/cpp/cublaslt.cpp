// cuBLASLt's product of column-major matrices: D = A B with what follows it.

typedef int Status;
constexpr Status SUCCESS = 0, INVALID_VALUE = 7, NOT_SUPPORTED = 15;

struct Layout {
    int type;
    u64 rows, columns;
    i64 pitch;
};
struct Description {
    int transposed[2] = {0, 0}, epilogue = 1;
    u64 bias = 0;
};
struct Preference {
    size_t room = 0;
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
API Status cublasLtDestroy(void *) { return SUCCESS; }
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
    *description = new Description;
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
    if (attribute != 1 || size != 8) return INVALID_VALUE;
    preference->room = *(const size_t *)value;
    return SUCCESS;
}

struct Job {
    Layout a, b, d;
    Description description;
    const void *of_a, *of_b;
    void *of_d, *room;
    size_t size;
};
static Status fits(const Job &job) {
    u64 rows = job.description.transposed[0] ? job.a.columns : job.a.rows, inner = job.description.transposed[0] ? job.a.rows : job.a.columns;
    u64 other = job.description.transposed[1] ? job.b.columns : job.b.rows, columns = job.description.transposed[1] ? job.b.rows : job.b.columns;
    bool known = job.description.epilogue == 1 || ((job.description.epilogue == 4 || job.description.epilogue == 6) && job.description.bias);
    return rows == job.d.rows && columns == job.d.columns && inner == other && known ? SUCCESS : INVALID_VALUE;
}
static void run(void *data) {
    const Job &job = *static_cast<const Job *>(data);
    if (job.room) memset(job.room, 0x5a, job.size);
    u64 inner = job.description.transposed[0] ? job.a.rows : job.a.columns;
    for (u64 i = 0; i < job.d.rows; ++i)
        for (u64 j = 0; j < job.d.columns; ++j) {
            double sum = 0.0;
            for (u64 k = 0; k < inner; ++k) {
                u64 of_a = job.description.transposed[0] ? k + i * job.a.pitch : i + k * job.a.pitch;
                u64 of_b = job.description.transposed[1] ? j + k * job.b.pitch : k + j * job.b.pitch;
                sum += (double)value_at(job.of_a, job.a.type, of_a) * value_at(job.of_b, job.b.type, of_b);
            }
            // A value of the bias for each row of D.
            if (job.description.epilogue & 4) sum += value_at((const void *)job.description.bias, job.d.type, i);
            if ((job.description.epilogue & 2) && sum < 0.0) sum = 0.0;
            set_value(job.of_d, job.d.type, i + j * job.d.pitch, (float)sum);
        }
}

API Status cublasLtMatmulAlgoGetHeuristic(void *, Description *description, Layout *a, Layout *b, Layout *, Layout *d, Preference *preference,
                                          int wanted, Proposal *proposals, int *count) {
    if (wanted < 1) return INVALID_VALUE;
    if (Status wrong = fits(Job{*a, *b, *d, *description, nullptr, nullptr, nullptr, nullptr, 0})) return wrong;
    proposals[0] = Proposal{{{42}}, preference->room, SUCCESS, 1.0f, {}};
    *count = 1;
    return SUCCESS;
}
API Status cublasLtMatmul(void *, Description *description, const void *alpha, const void *of_a, Layout *a, const void *of_b, Layout *b,
                          const void *beta, const void *, Layout *, void *of_d, Layout *d, const Algorithm *algorithm, void *room, size_t size,
                          void *stream) {
    if (*(const float *)alpha != 1.0f || *(const float *)beta != 0.0f || algorithm->data[0] != 42) return NOT_SUPPORTED;
    Job job{*a, *b, *d, *description, of_a, of_b, of_d, room, size};
    if (Status wrong = fits(job)) return wrong;
    stand_in_enqueue(stream, run, new Job(job));
    return SUCCESS;
}

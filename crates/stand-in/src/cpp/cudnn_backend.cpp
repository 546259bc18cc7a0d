// cuDNN's backend: descriptors that hold attributes until they are finalised, and graphs of one convolution, with or
// without sums of its channels, and with or without scale, shift and ReLU before it. Stricter than cuDNN: an attribute
// with a wrong type or length, an unknown or a missing one is an error. Comes after cudnn.cpp, which computes the
// convolutions.

#include <unistd.h>

#include <cstdio>
#include <map>
#include <utility>

typedef long long i64;
constexpr Status NOT_FINALIZED = 2004, WRONG_TYPE = 2010, WRONG_PATTERN = 3001;

enum Kind {
    POINTWISE = 0, CONVOLUTION = 1, ENGINE = 2, CONFIG = 3, HEURISTICS = 4, PLAN = 5, KNOB = 7, FORWARD_OP = 10, FILTER_OP = 11, DATA_OP = 12,
    POINTWISE_OP = 13, SUMS_OP = 14,
    GRAPH = 15,
    PACK = 16, TENSOR = 17,
};
enum Type {
    HANDLE = 0, DATA_TYPE = 1, BOOLEAN = 2, INT64 = 3, FLOAT = 4, VOID_PTR = 6, CONVOLUTION_MODE = 7, HEUR_MODE = 8, KNOB_TYPE = 9,
    NUMERICAL_NOTE = 11, POINTWISE_MODE = 14, DESCRIPTOR = 15, SUMS_MODE = 16,
};
enum { ADD = 0, MUL = 1, RELU = 100 };
static size_t size_of(int type) {
    switch (type) {
        case HANDLE: case INT64: case VOID_PTR: case DESCRIPTOR: return 8;
        case BOOLEAN: return 1;
        default: return 4;
    }
}

// An attribute that may be set: the kind of descriptor, its name, its type, and the least and most values that it
// holds.
struct Rule {
    int kind, name, type, least, most;
};
static const Rule RULES[] = {
    {TENSOR, 900, INT64, 1, 1}, {TENSOR, 901, DATA_TYPE, 1, 1}, {TENSOR, 902, INT64, 4, 4}, {TENSOR, 903, INT64, 4, 4}, {TENSOR, 906, INT64, 1, 1},
    {TENSOR, 907, BOOLEAN, 0, 1},
    {POINTWISE, 0, POINTWISE_MODE, 1, 1}, {POINTWISE, 1, DATA_TYPE, 1, 1},
    {POINTWISE_OP, 750, DESCRIPTOR, 1, 1}, {POINTWISE_OP, 751, DESCRIPTOR, 1, 1}, {POINTWISE_OP, 752, DESCRIPTOR, 0, 1}, {POINTWISE_OP, 753, DESCRIPTOR, 1, 1},
    {CONVOLUTION, 100, DATA_TYPE, 1, 1}, {CONVOLUTION, 101, CONVOLUTION_MODE, 1, 1}, {CONVOLUTION, 102, INT64, 2, 2},
    {CONVOLUTION, 103, INT64, 2, 2}, {CONVOLUTION, 104, INT64, 2, 2}, {CONVOLUTION, 105, INT64, 2, 2}, {CONVOLUTION, 106, INT64, 1, 1},
    {FORWARD_OP, 700, FLOAT, 1, 1}, {FORWARD_OP, 701, FLOAT, 1, 1}, {FORWARD_OP, 702, DESCRIPTOR, 1, 1}, {FORWARD_OP, 703, DESCRIPTOR, 1, 1},
    {FORWARD_OP, 704, DESCRIPTOR, 1, 1}, {FORWARD_OP, 705, DESCRIPTOR, 1, 1},
    {DATA_OP, 706, FLOAT, 1, 1}, {DATA_OP, 707, FLOAT, 1, 1}, {DATA_OP, 708, DESCRIPTOR, 1, 1}, {DATA_OP, 709, DESCRIPTOR, 1, 1},
    {DATA_OP, 710, DESCRIPTOR, 1, 1}, {DATA_OP, 711, DESCRIPTOR, 1, 1},
    {FILTER_OP, 712, FLOAT, 1, 1}, {FILTER_OP, 713, FLOAT, 1, 1}, {FILTER_OP, 714, DESCRIPTOR, 1, 1}, {FILTER_OP, 715, DESCRIPTOR, 1, 1},
    {FILTER_OP, 716, DESCRIPTOR, 1, 1}, {FILTER_OP, 717, DESCRIPTOR, 1, 1},
    {SUMS_OP, 770, SUMS_MODE, 1, 1}, {SUMS_OP, 771, DATA_TYPE, 1, 1}, {SUMS_OP, 772, DESCRIPTOR, 1, 1}, {SUMS_OP, 773, DESCRIPTOR, 1, 1},
    {SUMS_OP, 774, DESCRIPTOR, 1, 1},
    {GRAPH, 800, HANDLE, 1, 1}, {GRAPH, 801, DESCRIPTOR, 1, 5},
    {HEURISTICS, 200, HEUR_MODE, 1, 1}, {HEURISTICS, 201, DESCRIPTOR, 1, 1},
    {ENGINE, 1300, DESCRIPTOR, 1, 1}, {ENGINE, 1301, INT64, 1, 1},
    {KNOB, 600, KNOB_TYPE, 1, 1}, {KNOB, 601, INT64, 1, 1},
    {CONFIG, 300, DESCRIPTOR, 1, 1}, {CONFIG, 302, DESCRIPTOR, 0, 8},
    {PLAN, 400, HANDLE, 1, 1}, {PLAN, 401, DESCRIPTOR, 1, 1},
    {PACK, 1000, INT64, 1, 8}, {PACK, 1001, VOID_PTR, 1, 8}, {PACK, 1003, VOID_PTR, 1, 1},
};

struct Operation {
    Pass pass;
    Tensor x, w, y;
    i64 ids[3], alignment;
    Convolution convolution;
    float beta;
    // The ids of sums and of sums of squares, if there are any.
    bool with_sums;
    i64 of_sums[2];
    // Whether x is the result of operations before; if so, the ids of their input, of scale and of shift.
    bool normalised;
    i64 of_norm[3];
};
typedef std::vector<std::pair<int, i64>> Knobs;
// When a descriptor is finalised, it copies the contents of those that it refers to.
struct Descriptor {
    int kind;
    bool finalized, between;
    std::map<int, std::vector<char>> attributes;
    Tensor tensor;
    i64 id, alignment;
    Operation operation;
    // For a pointwise operation: the ids of its input, of the other operand if it has one, and of its result.
    i64 of_pointwise[3];
    Handle *handle;
    int engine;
    Knobs knobs;
    int mode;
    size_t room;

    template <class T> std::vector<T> values(int name) const {
        auto found = attributes.find(name);
        if (found == attributes.end()) return {};
        const T *from = reinterpret_cast<const T *>(found->second.data());
        return std::vector<T>(from, from + found->second.size() / sizeof(T));
    }
    template <class T> T value(int name) const { return values<T>(name)[0]; }
    const Descriptor &part(int name) const { return *value<Descriptor *>(name); }
};

static thread_local char last_error[256];
static Status refuse(Status status, const char *why, int what = 0) {
    snprintf(last_error, sizeof last_error, "stand-in: %s %d", why, what);
    return status;
}
API void cudnnGetLastErrorString(char *message, size_t size) {
    snprintf(message, size, "%s", last_error);
    last_error[0] = 0;
}

API Status cudnnBackendCreateDescriptor(int kind, Descriptor **descriptor) {
    bool known = false;
    for (const Rule &rule : RULES) known |= rule.kind == kind;
    if (!known) return refuse(NOT_SUPPORTED, "no descriptor", kind);
    *descriptor = new Descriptor();
    (*descriptor)->kind = kind;
    return SUCCESS;
}
API Status cudnnBackendDestroyDescriptor(Descriptor *descriptor) {
    delete descriptor;
    return SUCCESS;
}
API Status cudnnBackendSetAttribute(Descriptor *descriptor, int name, int type, i64 count, const void *values) {
    if (!descriptor || !values) return refuse(BAD_PARAM, "null for attribute", name);
    if (descriptor->finalized) return refuse(BAD_PARAM, "finalised already, attribute", name);
    for (const Rule &rule : RULES) {
        if (rule.kind != descriptor->kind || rule.name != name) continue;
        if (rule.type != type) return refuse(WRONG_TYPE, "wrong type of attribute", name);
        if (count < rule.least || count > rule.most || (rule.least == rule.most && count != rule.least)) return refuse(BAD_PARAM, "wrong length of attribute", name);
        if (type == DESCRIPTOR)
            for (i64 i = 0; i < count; ++i)
                if (!static_cast<Descriptor *const *>(values)[i]->finalized) return refuse(NOT_FINALIZED, "not finalised in attribute", name);
        const char *from = static_cast<const char *>(values);
        descriptor->attributes[name].assign(from, from + count * size_of(type));
        return SUCCESS;
    }
    return refuse(BAD_PARAM, "no such attribute", name);
}

// The engines. 0 works for everything without sums, slowly; 1 needs a workspace and has a knob, but gives other bits
// each time for filters, and cannot add; 2 uses tensor cores, which round f32; 3 rounds its inputs; 4 never works; 5
// forgets to add; 6 computes sums, which it adds to the values that are there; 7 has scale, shift and ReLU before.
enum { SLOW, ROOMY, TENSOR_CORES, ROUNDING, BROKEN, FORGETFUL, SUMMING, NORMALISING };
static std::vector<int> notes_of(const Descriptor &engine) {
    bool wavers = engine.engine == ROOMY && engine.operation.pass == FILTER;
    if (wavers) return {4};
    if (engine.engine == TENSOR_CORES) return {0};
    if (engine.engine == ROUNDING) return {0, 1};
    return {};
}
static bool knobs_fit(int engine, const Knobs &knobs) {
    if (engine == ROOMY) return knobs.size() == 1 && knobs[0].first == 2 && (knobs[0].second == 0 || knobs[0].second == 1);
    if (engine == TENSOR_CORES) return knobs.size() == 2 && knobs[0] == std::make_pair(14, i64(3)) && knobs[1] == std::make_pair(99, i64(-1));
    return knobs.empty();
}
static std::vector<std::pair<int, Knobs>> proposals(const Descriptor &heuristics) {
    const Knobs both = {{14, 3}, {99, -1}};
    // No engine with these operations before has a window larger than 3 x 3.
    if (heuristics.operation.normalised && heuristics.operation.w.h > 3) return {};
    if (heuristics.operation.normalised) return {{BROKEN, {}}, {NORMALISING, {}}};
    if (heuristics.operation.with_sums) return {{SUMMING, {}}};
    if (heuristics.mode == 2) return {{SLOW, {}}};
    if (heuristics.mode == 1) return {{TENSOR_CORES, both}, {SLOW, {}}};
    return {{ROUNDING, {}}, {TENSOR_CORES, both}, {BROKEN, {}}, {FORGETFUL, {}}, {ROOMY, {{2, 0}}}, {ROOMY, {{2, 1}}}};
}

static Status finalize_tensor(Descriptor &d) {
    auto size = d.values<i64>(902), stride = d.values<i64>(903);
    i64 n = size[0], c = size[1], h = size[2], w = size[3];
    bool last = stride[0] == h * w * c && stride[1] == 1 && stride[2] == w * c && stride[3] == c;
    d.tensor = Tensor{type_of(d.value<int>(901)), int(n), int(h), int(w), int(c)};
    d.id = d.value<i64>(906);
    d.alignment = d.value<i64>(900);
    d.between = d.attributes.count(907) && d.value<bool>(907);
    if (!last || n < 1 || c < 1 || h < 1 || w < 1 || d.tensor.type < 0) return refuse(NOT_SUPPORTED, "not a tensor with its channels last, id", int(d.id));
    return SUCCESS;
}
static Status finalize_convolution(Descriptor &d) {
    auto before = d.values<i64>(105), after = d.values<i64>(104), dilation = d.values<i64>(102), stride = d.values<i64>(103);
    bool plain = d.value<int>(100) == 0 && d.value<int>(101) == 1 && d.value<i64>(106) == 2 && before == after && before[0] == before[1] &&
                 dilation[0] == 1 && dilation[1] == 1 && stride[0] == stride[1];
    d.operation.convolution = Convolution{int(before[0]), int(stride[0]), 0};
    return plain ? SUCCESS : refuse(NOT_SUPPORTED, "not a plain convolution");
}
static Status finalize_operation(Descriptor &d, Pass pass, int convolution, int x, int w, int y, int alpha, int beta) {
    const Descriptor &of_x = d.part(x), &of_w = d.part(w), &of_y = d.part(y);
    if (of_x.kind != TENSOR || of_w.kind != TENSOR || of_y.kind != TENSOR || d.part(convolution).kind != CONVOLUTION)
        return refuse(BAD_PARAM, "a part of an operation is of another kind");
    d.operation = Operation{pass, of_x.tensor, of_w.tensor, of_y.tensor, {of_x.id, of_w.id, of_y.id}, of_x.alignment,
                            d.part(convolution).operation.convolution, d.value<float>(beta), false, {}, of_x.between, {}};
    if (of_w.between || of_y.between) return refuse(BAD_PARAM, "weights or an output that are not in memory");
    Operation &op = d.operation;
    // The result may have a wider type than the operands.
    const Tensor &out = pass == FORWARD ? op.y : pass == DATA ? op.x : op.w, &in = pass == FORWARD ? op.x : op.y;
    Tensor of[3] = {op.x, op.w, op.y};
    for (Tensor &tensor : of) tensor.type = in.type;
    bool types = (out.type == in.type || out.type == 0) && (pass == FORWARD ? op.w : pass == DATA ? op.w : op.x).type == in.type;
    if (!types || fits(&of[0], &of[1], &op.convolution, &of[2])) return refuse(BAD_PARAM, "tensors that do not belong together");
    if (d.value<float>(alpha) != 1.0f || (op.beta != 0.0f && op.beta != 1.0f)) return refuse(NOT_SUPPORTED, "a factor");
    return op.ids[0] != op.ids[1] && op.ids[1] != op.ids[2] && op.ids[0] != op.ids[2] ? SUCCESS : refuse(BAD_PARAM, "the same id twice");
}
static Status finalize_sums(Descriptor &d) {
    const Descriptor *of[3] = {&d.part(772), &d.part(773), &d.part(774)};
    for (const Descriptor *part : of)
        if (part->kind != TENSOR) return refuse(BAD_PARAM, "sums of another kind");
    d.id = of[0]->id;
    for (int i = 0; i < 2; ++i) {
        const Tensor &sums = of[i + 1]->tensor;
        d.operation.of_sums[i] = of[i + 1]->id;
        if (sums.type != 0 || sums.n != 1 || sums.h != 1 || sums.w != 1 || sums.c != of[0]->tensor.c) return refuse(BAD_PARAM, "the shape of sums");
    }
    return d.value<int>(770) == 0 && d.value<int>(771) == 0 ? SUCCESS : refuse(NOT_SUPPORTED, "a kind of sums");
}
static Status finalize_pointwise(Descriptor &d) {
    const Descriptor &of = d.part(750), &x = d.part(751), &y = d.part(753);
    if (of.kind != POINTWISE || x.kind != TENSOR || y.kind != TENSOR) return refuse(BAD_PARAM, "a part of an operation is of another kind");
    if (of.value<int>(1) != 0) return refuse(NOT_SUPPORTED, "a pointwise operation that is not computed in f32");
    d.mode = of.value<int>(0);
    if (d.mode != ADD && d.mode != MUL && d.mode != RELU) return refuse(NOT_SUPPORTED, "pointwise mode", d.mode);
    bool two = d.attributes.count(752);
    if (two == (d.mode == RELU)) return refuse(BAD_PARAM, "not as many operands as pointwise mode", d.mode);
    d.tensor = x.tensor;
    d.between = x.between;
    d.of_pointwise[0] = x.id;
    d.of_pointwise[2] = y.id;
    if (memcmp(&x.tensor, &y.tensor, sizeof x.tensor) || x.id == y.id || !y.between) return refuse(BAD_PARAM, "what a pointwise operation leaves");
    if (!two) return SUCCESS;
    const Descriptor &other = d.part(752);
    const Tensor &b = other.tensor;
    d.of_pointwise[1] = other.id;
    bool channels = other.kind == TENSOR && !other.between && b.type == x.tensor.type && b.n == 1 && b.c == x.tensor.c && b.h == 1 && b.w == 1;
    return channels && other.id != x.id && other.id != y.id ? SUCCESS : refuse(BAD_PARAM, "not a value for each channel");
}
// Checks that scale, shift and ReLU, in this order, lead from a tensor in memory to the convolution's input.
static Status normalise(Operation &of, Descriptor *const *operations) {
    const int modes[3] = {MUL, ADD, RELU};
    i64 before = 0;
    for (int i = 0; i < 3; ++i) {
        const Descriptor &op = *operations[i];
        if (op.kind != POINTWISE_OP || op.mode != modes[i]) return refuse(WRONG_PATTERN, "not scale, shift and ReLU", i);
        if (op.between != (i > 0) || (i > 0 && op.of_pointwise[0] != before)) return refuse(WRONG_PATTERN, "not of what comes before", i);
        if (i < 2) of.of_norm[i + 1] = op.of_pointwise[1];
        before = op.of_pointwise[2];
    }
    of.of_norm[0] = operations[0]->of_pointwise[0];
    bool same = before == of.ids[0] && !memcmp(&operations[0]->tensor, &of.x, sizeof of.x);
    return same ? SUCCESS : refuse(WRONG_PATTERN, "a convolution of something else");
}
static Status finalize_graph(Descriptor &d) {
    auto operations = d.values<Descriptor *>(801);
    size_t at = 0;
    while (at < operations.size() && operations[at]->kind == POINTWISE_OP) ++at;
    if (at == operations.size() || operations[at]->kind == SUMS_OP) return refuse(WRONG_PATTERN, "no convolution");
    d.operation = operations[at]->operation;
    if (d.operation.normalised != (at > 0) || (at && at != 3)) return refuse(WRONG_PATTERN, "what comes before a convolution");
    if (at)
        if (Status wrong = normalise(d.operation, operations.data())) return wrong;
    if (operations.size() == at + 1) return SUCCESS;
    const Descriptor &sums = *operations[at + 1];
    bool of_it = operations.size() == at + 2 && sums.kind == SUMS_OP && d.operation.pass == FORWARD && sums.id == d.operation.ids[2];
    if (!of_it) return refuse(WRONG_PATTERN, "sums of something else");
    d.operation.with_sums = true;
    for (int i = 0; i < 2; ++i) d.operation.of_sums[i] = sums.operation.of_sums[i];
    return SUCCESS;
}
static Status finalize_plan(Descriptor &d) {
    const Descriptor &config = d.part(401);
    if (config.kind != CONFIG) return refuse(BAD_PARAM, "a plan without a configuration");
    d.operation = config.operation;
    d.engine = config.engine;
    d.handle = d.value<Handle *>(400);
    d.room = d.engine == ROOMY ? ROOM : d.engine == TENSOR_CORES ? 64 : 0;
    bool wide = d.operation.x.c % 8 == 0 && d.operation.y.c % 8 == 0;
    // As on a GPU, sums exist only for f16.
    bool half = wide && d.operation.x.type == 2;
    if (d.operation.normalised != (d.engine == NORMALISING)) return refuse(WRONG_PATTERN, "engine", d.engine);
    if (d.engine == NORMALISING) {
        const Operation &op = d.operation;
        bool serves = half && !op.beta && op.w.type == 2 && op.y.type == 2 && (op.pass == FORWARD ? op.with_sums : op.pass == FILTER);
        return serves ? SUCCESS : refuse(WRONG_PATTERN, "engine", d.engine);
    }
    if (d.operation.with_sums != (d.engine == SUMMING) || (d.engine == SUMMING && !half)) return refuse(WRONG_PATTERN, "engine", d.engine);
    if (d.engine == BROKEN || (d.engine == ROOMY && d.operation.beta) || (d.engine == TENSOR_CORES && !wide)) return refuse(WRONG_PATTERN, "engine", d.engine);
    return SUCCESS;
}

API Status cudnnBackendFinalize(Descriptor *descriptor) {
    if (!descriptor || descriptor->finalized) return refuse(BAD_PARAM, "finalised already");
    Descriptor &d = *descriptor;
    for (const Rule &rule : RULES)
        if (rule.kind == d.kind && rule.least > 0 && !d.attributes.count(rule.name)) return refuse(BAD_PARAM, "missing attribute", rule.name);
    Status status = SUCCESS;
    switch (d.kind) {
        case TENSOR: status = finalize_tensor(d); break;
        case CONVOLUTION: status = finalize_convolution(d); break;
        case FORWARD_OP: status = finalize_operation(d, FORWARD, 702, 704, 703, 705, 700, 701); break;
        case DATA_OP: status = finalize_operation(d, DATA, 708, 710, 709, 711, 706, 707); break;
        case FILTER_OP: status = finalize_operation(d, FILTER, 714, 716, 715, 717, 712, 713); break;
        case SUMS_OP: status = finalize_sums(d); break;
        case POINTWISE_OP: status = finalize_pointwise(d); break;
        case GRAPH: status = finalize_graph(d); break;
        case HEURISTICS:
            d.operation = d.part(201).operation;
            d.mode = d.value<int>(200);
            if (d.mode < 1 || d.mode > 3) status = refuse(NOT_SUPPORTED, "mode", d.mode);
            break;
        case ENGINE:
            d.operation = d.part(1300).operation;
            d.engine = int(d.value<i64>(1301));
            if (d.engine < 0 || d.engine > NORMALISING) status = refuse(BAD_PARAM, "no engine", d.engine);
            break;
        case CONFIG:
            d.operation = d.part(300).operation;
            d.engine = d.part(300).engine;
            for (Descriptor *choice : d.values<Descriptor *>(302)) d.knobs.push_back({choice->value<int>(600), choice->value<i64>(601)});
            if (!knobs_fit(d.engine, d.knobs)) status = refuse(NOT_SUPPORTED, "choices of engine", d.engine);
            break;
        case PLAN: status = finalize_plan(d); break;
        case PACK: status = d.values<i64>(1000).size() == d.values<void *>(1001).size() ? SUCCESS : refuse(BAD_PARAM, "not a pointer for each id"); break;
    }
    d.finalized = status == SUCCESS;
    return status;
}

// Fills in a descriptor that the caller created, with a part of another.
static Status give(void *to, i64 at, int kind, const Descriptor &from) {
    Descriptor *part = static_cast<Descriptor **>(to)[at];
    if (part->kind != kind || part->finalized) return refuse(BAD_PARAM, "nothing to fill of kind", kind);
    part->operation = from.operation;
    part->engine = from.engine;
    part->knobs = from.knobs;
    part->attributes = from.attributes;
    part->finalized = true;
    return SUCCESS;
}
template <class T> static Status give_values(const std::vector<T> &values, i64 most, i64 *count, void *to) {
    *count = values.size();
    for (i64 i = 0; i < most && i < *count; ++i) static_cast<T *>(to)[i] = values[i];
    return SUCCESS;
}
API Status cudnnBackendGetAttribute(Descriptor *descriptor, int name, int type, i64 most, i64 *count, void *values) {
    if (!descriptor || !descriptor->finalized) return refuse(NOT_FINALIZED, "reading attribute", name);
    if (most > 0 && !values) return refuse(BAD_PARAM, "no room for attribute", name);
    const Descriptor &d = *descriptor;
    auto is = [&](int kind, int of, int as) { return d.kind == kind && name == of && type == as; };
    if (is(HEURISTICS, 202, DESCRIPTOR)) {
        auto all = proposals(d);
        *count = all.size();
        for (i64 i = 0; i < most && i < *count; ++i) {
            Descriptor config{};
            config.operation = d.operation;
            config.engine = all[i].first;
            config.knobs = all[i].second;
            if (Status wrong = give(values, i, CONFIG, config)) return wrong;
        }
        return SUCCESS;
    }
    if (is(CONFIG, 300, DESCRIPTOR)) {
        *count = 1;
        return most ? give(values, 0, ENGINE, d) : SUCCESS;
    }
    if (is(CONFIG, 302, DESCRIPTOR)) {
        *count = d.knobs.size();
        for (i64 i = 0; i < most && i < *count; ++i) {
            Descriptor choice{};
            const char *of = reinterpret_cast<const char *>(&d.knobs[i].first), *value = reinterpret_cast<const char *>(&d.knobs[i].second);
            choice.attributes[600].assign(of, of + 4);
            choice.attributes[601].assign(value, value + 8);
            if (Status wrong = give(values, i, KNOB, choice)) return wrong;
        }
        return SUCCESS;
    }
    if (is(ENGINE, 1301, INT64)) return give_values<i64>({d.engine}, most, count, values);
    if (is(ENGINE, 1303, NUMERICAL_NOTE)) return give_values<int>(notes_of(d), most, count, values);
    if (is(KNOB, 600, KNOB_TYPE)) return give_values<int>(d.values<int>(600), most, count, values);
    if (is(KNOB, 601, INT64)) return give_values<i64>(d.values<i64>(601), most, count, values);
    if (is(PLAN, 402, INT64)) return give_values<i64>({i64(d.room)}, most, count, values);
    return refuse(BAD_PARAM, "nothing to read in attribute", name);
}

struct Started {
    Job job;
    int engine;
    float *sums[2];
    // Scale and shift of the operations before.
    const void *norm[2];
};
static void run_engine(void *data) {
    const Started &started = *static_cast<Started *>(data);
    Job job = started.job;
    const Tensor &x = job.x, &y = job.y;
    // Each step is rounded to f16, as on a GPU, where it stays in registers.
    std::vector<f16> activation;
    for (size_t i = 0; started.engine == NORMALISING && i < (size_t)x.n * x.h * x.w * x.c; ++i) {
        f16 scaled = Narrow<f16>::of(value_at(job.first, x.type, i) * value_at(started.norm[0], x.type, i % x.c));
        f16 shifted = Narrow<f16>::of(widen(scaled) + value_at(started.norm[1], x.type, i % x.c));
        activation.push_back(widen(shifted) <= 0.0f ? f16{0} : shifted);
    }
    if (started.engine == NORMALISING) job.first = activation.data();
    run(&job);
    for (size_t i = 0; started.sums[0] && i < (size_t)y.n * y.h * y.w * y.c; ++i) {
        float value = value_at(job.out, y.type, i);
        started.sums[0][i % y.c] += value;
        started.sums[1][i % y.c] += value * value;
    }
    if (started.engine == SLOW) usleep(300);
    // For six images in f16, all other engines are slow, so that the fused one can be the fastest.
    if (started.engine != NORMALISING && x.n == 6 && x.type == 2 && job.pass != DATA) usleep(5000);
}
API Status cudnnBackendExecute(Handle *handle, Descriptor *plan, Descriptor *pack) {
    if (!plan->finalized || !pack->finalized || plan->kind != PLAN || pack->kind != PACK) return refuse(NOT_FINALIZED, "starting a plan");
    if (handle != plan->handle) return refuse(BAD_PARAM, "a plan of another handle");
    const Operation &op = plan->operation;
    auto ids = pack->values<i64>(1000);
    auto pointers = pack->values<char *>(1001);
    std::vector<i64> wanted = {op.normalised ? op.of_norm[0] : op.ids[0], op.ids[1], op.ids[2]};
    if (op.with_sums) wanted.insert(wanted.end(), {op.of_sums[0], op.of_sums[1]});
    const size_t norm = wanted.size();
    if (op.normalised) wanted.insert(wanted.end(), {op.of_norm[1], op.of_norm[2]});
    char *of[7] = {};
    const size_t operands = wanted.size();
    if (ids.size() != operands) return refuse(BAD_PARAM, "not as many operands");
    for (size_t j = 0; j < operands; ++j) {
        for (size_t i = 0; i < ids.size(); ++i)
            if (ids[i] == wanted[j]) of[j] = pointers[i];
        if (!of[j] || (size_t)of[j] % op.alignment) return refuse(BAD_PARAM, "an operand is missing, or not aligned", int(j));
    }
    char *room = pack->value<char *>(1003);
    if (plan->room && !room) return refuse(BAD_PARAM, "no workspace");
    const void *first = op.pass == DATA ? of[1] : of[0], *second = op.pass == FORWARD ? of[1] : of[2];
    void *out = op.pass == FORWARD ? of[2] : op.pass == DATA ? of[0] : of[1];
    bool add = op.beta != 0.0f && plan->engine != FORGETFUL, wavers = plan->engine == ROOMY && op.pass == FILTER;
    Job job{op.pass, op.x, op.w, op.y, op.convolution, first, second, out, plan->room ? room : nullptr, plan->room, add, false, wavers};
    bool single = (op.pass == FORWARD ? op.x : op.y).type == 0;
    job.factor = plan->engine == ROUNDING ? 1.1 : plan->engine == TENSOR_CORES && single ? 1.001 : 1.0;
    Started *started = new Started{job, plan->engine, {}, {}};
    for (int i = 0; i < 2 && op.with_sums; ++i) started->sums[i] = (float *)of[3 + i];
    for (int i = 0; i < 2 && op.normalised; ++i) started->norm[i] = of[norm + i];
    stand_in_enqueue(handle->stream, run_engine, started, nullptr);
    return SUCCESS;
}

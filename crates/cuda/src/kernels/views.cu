// Views of images: crop, bicubic resize and flip, then operators on single pixels, and a blur.
//
// The arithmetic is that of simclr-augment, in the same order and without contraction (compiled with --fmad=false),
// except for the mean of grey and the exponentials of the blur.

constexpr u32 MOST_STEPS = 16;
// The weights of the widest blur, for a view of 16,384 pixels: one half, and the centre.
constexpr u32 MOST_WEIGHTS = 820;

enum Kind : u32 { BRIGHTNESS, BRIGHTNESS_SHIFT, CONTRAST, SATURATION, HUE, GRAY, SOLARIZE };
enum Blur : u32 { NONE, ZERO, REFLECT };

struct View {
    // The byte at which the image begins.
    u64 image;
    u32 width, height;
    // The crop, within the image.
    u32 left, top, crop_width, crop_height;
    u32 flip;
    // The number of operators, and of those before the blur.
    u32 steps, before_blur;
    u32 blur;
    float sigma;
    u32 kinds[MOST_STEPS];
    float values[MOST_STEPS];
    u32 unused;
};

struct Pixel {
    float red, green, blue;
};

DEVICE float clip(float v) {
    v = v > 0.0f ? v : 0.0f;
    return v < 1.0f ? v : 1.0f;
}
DEVICE Pixel clip(Pixel p) { return {clip(p.red), clip(p.green), clip(p.blue)}; }
DEVICE float luma(Pixel p) { return 0.299f * p.red + 0.587f * p.green + 0.114f * p.blue; }
DEVICE float larger(float a, float b) { return a > b ? a : b; }
DEVICE float smaller(float a, float b) { return a < b ? a : b; }

// `factor` times the value plus a shift: brightness, contrast, saturation.
DEVICE Pixel scaled(Pixel p, float factor, float shift) {
    return clip({factor * p.red + shift, factor * p.green + shift, factor * p.blue + shift});
}

// Rotates the hue by `sixths` of a circle, in [0, 6): see simclr-augment.
DEVICE Pixel turned(Pixel p, float sixths) {
    float value = larger(larger(p.red, p.green), p.blue);
    float chroma = value - smaller(smaller(p.red, p.green), p.blue);
    float inverse = 1.0f / larger(chroma, 1.17549435e-38f);
    float from_red = (p.green - p.blue) * inverse;
    float from_green = (p.blue - p.red) * inverse + 2.0f;
    float from_blue = (p.red - p.green) * inverse + 4.0f;
    float hue = (value == p.red ? from_red : value == p.green ? from_green : from_blue) + sixths;
    hue = hue < 0.0f ? hue + 6.0f : hue;
    hue = hue < 6.0f ? hue : hue - 6.0f;
    float red = 2.0f - fabsf(hue - 3.0f), green = fabsf(hue - 2.0f) - 1.0f, blue = fabsf(hue - 4.0f) - 1.0f;
    return clip({value - chroma * clip(red), value - chroma * clip(green), value - chroma * clip(blue)});
}

DEVICE float solarized(float v, float threshold) { return v < threshold ? v : 1.0f - v; }

DEVICE Pixel applied(Pixel p, u32 kind, float value, float mean) {
    switch (kind) {
    case BRIGHTNESS:
        return clip({value * p.red, value * p.green, value * p.blue});
    case BRIGHTNESS_SHIFT:
        return clip({p.red + value, p.green + value, p.blue + value});
    case CONTRAST:
        return scaled(p, value, (1.0f - value) * mean);
    case SATURATION:
        return scaled(p, value, (1.0f - value) * luma(p));
    case HUE:
        return turned(p, value);
    case GRAY: {
        float gray = luma(p);
        return {gray, gray, gray};
    }
    default:
        return {solarized(p.red, value), solarized(p.green, value), solarized(p.blue, value)};
    }
}

// Rounds a value in [0, 1] to one of 256 levels, half to even: adding 2^23 leaves no bits for a fraction.
DEVICE u8 level(float v) { return (u8)(__float_as_uint(v * 255.0f + 8388608.0f) & 0xff); }

// Three planes of side x side values.
DEVICE Pixel loaded(const float *planes, u32 area, u32 at) { return {planes[at], planes[area + at], planes[2 * area + at]}; }
DEVICE void stored(float *planes, u32 area, u32 at, Pixel p) {
    planes[at] = p.red;
    planes[area + at] = p.green;
    planes[2 * area + at] = p.blue;
}
DEVICE void finished(u8 *out, u32 at, Pixel p) {
    out[3 * at] = level(p.red);
    out[3 * at + 1] = level(p.green);
    out[3 * at + 2] = level(p.blue);
}

// Keys' cubic convolution kernel with a = -0.5.
DEVICE float cubic(float x) {
    const float A = -0.5f;
    x = fabsf(x);
    float near = ((A + 2.0f) * x - (A + 3.0f)) * x * x + 1.0f;
    float far = A * (((x - 5.0f) * x + 8.0f) * x - 4.0f);
    return x < 1.0f ? near : x < 2.0f ? far : 0.0f;
}

// The source pixels of an output pixel along one axis, and the index of their first weight.
struct Span {
    u32 first, begin, count;
};

// The taps of output pixel `out` of `side`, from `length` source pixels. Their weights, which sum to `gain`, are
// written from `weights` on.
DEVICE Span taps_of(u32 out, u32 side, u32 length, float gain, float *weights) {
    double scale = (double)length / (double)side;
    double stretch = scale > 1.0 ? scale : 1.0, inverse = 1.0 / stretch, radius = 2.0 * stretch;
    double center = ((double)out + 0.5) * scale;
    u32 low = center - radius > 0.0 ? (u32)(center - radius) : 0;
    double end = center + radius;
    u32 high = (u32)end + (end - (double)(u32)end > 0.0 ? 1 : 0);
    high = high < length ? high : length;
    float nearest = (float)(((double)low + 0.5 - center) * inverse), step = (float)inverse;
    // Skip zeros at either end.
    u32 count = high - low, begin = count, stop = 0;
    float sum = 0.0f;
    for (u32 t = 0; t < count; ++t) {
        float weight = cubic(nearest + (float)t * step);
        weights[t] = weight;
        if (weight != 0.0f) {
            begin = begin < t ? begin : t;
            stop = t + 1;
        }
    }
    for (u32 t = begin; t < stop; ++t) sum += weights[t];
    float norm = gain / sum;
    for (u32 t = begin; t < stop; ++t) weights[t] *= norm;
    return {low + begin, begin, stop - begin};
}

// A pixel of the resized view: sums along columns of the source first, then along the row.
DEVICE Pixel resized(const u8 *image, const View &view, Span rows, const float *row_weights, Span columns, const float *column_weights) {
    Pixel sum = {0.0f, 0.0f, 0.0f};
    i64 pitch = 3 * (i64)view.width;
    const u8 *corner = image + (view.top + rows.first) * pitch + 3 * (i64)(view.left + columns.first);
    for (u32 x = 0; x < columns.count; ++x) {
        Pixel line = {0.0f, 0.0f, 0.0f};
        const u8 *at = corner + 3 * x;
        for (u32 y = 0; y < rows.count; ++y, at += pitch) {
            float weight = row_weights[rows.begin + y];
            line.red += weight * (float)at[0];
            line.green += weight * (float)at[1];
            line.blue += weight * (float)at[2];
        }
        float weight = column_weights[columns.begin + x];
        sum.red += weight * line.red;
        sum.green += weight * line.green;
        sum.blue += weight * line.blue;
    }
    return clip(sum);
}

// Everything up to the blur, one block per view. `spans` is (views, 2, side) and `weights` (views, 2, side, most), rows
// before columns. `planes` (views, 3, side, side) holds the view if an operator needs its mean or a blur follows; `out`
// is (views, side, side, 3).
KERNEL(1024, views_resize)
(const u8 *images, const View *views, u32 side, Span *spans, float *weights, u32 most, float *planes, u8 *out) {
    SHARED double places[32];
    SHARED float shared_mean;
    const View &view = views[blockIdx.x];
    u32 area = side * side;
    spans += (i64)blockIdx.x * 2 * side;
    weights += (i64)blockIdx.x * 2 * side * most;
    planes += (i64)blockIdx.x * 3 * area;
    out += (i64)blockIdx.x * 3 * area;
    for (u32 i = threadIdx.x; i < 2 * side; i += blockDim.x) {
        bool row = i < side;
        u32 length = row ? view.crop_height : view.crop_width;
        spans[i] = taps_of(row ? i : i - side, side, length, row ? 1.0f : 1.0f / 255.0f, weights + (i64)i * most);
    }
    __syncthreads();
    float mean = 0.0f;
    u32 begin = 0;
    for (bool resize = true;; resize = false) {
        // Up to the next contrast, which needs the mean grey value of its input and so begins the next pass.
        u32 end = resize ? begin : begin + 1;
        while (end < view.before_blur && view.kinds[end] != CONTRAST) ++end;
        bool last = end >= view.before_blur;
        double sum = 0.0;
        for (u32 at = threadIdx.x; at < area; at += blockDim.x) {
            Pixel pixel;
            if (resize) {
                u32 y = at / side, x = at % side, column = side + (view.flip ? side - 1 - x : x);
                pixel = resized(images + view.image, view, spans[y], weights + (i64)y * most, spans[column], weights + (i64)column * most);
            } else {
                pixel = loaded(planes, area, at);
            }
            for (u32 step = begin; step < end; ++step) pixel = applied(pixel, view.kinds[step], view.values[step], mean);
            if (!last) sum += luma(pixel);
            if (!last || view.blur != NONE) stored(planes, area, at, pixel);
            else finished(out, at, pixel);
        }
        if (last) return;
        sum = block_sum(sum, places);
        if (threadIdx.x == 0) shared_mean = (float)sum / (float)area;
        __syncthreads();
        mean = shared_mean;
        begin = end;
    }
}

// The weights of a Gaussian from the centre outwards, whose whole kernel spans a tenth of the view's side; returns
// their number. Weights of at most 2e-4 of the centre's are left out.
DEVICE u32 gaussian(float *kernel, u32 *count, float sigma, u32 side) {
    float scale = -0.5f / (sigma * sigma);
    u32 radius = side / 20;
    for (u32 t = threadIdx.x; t <= radius; t += blockDim.x) kernel[t] = expf((float)(t * t) * scale);
    __syncthreads();
    if (threadIdx.x == 0) {
        u32 kept = 0;
        while (kept <= radius && kernel[kept] > 2e-4f) ++kept;
        // If sigma is so small that its square underflows, the centre is NaN.
        if (kept == 0) {
            kernel[0] = 1.0f;
            kept = 1;
        }
        float sides = 0.0f;
        for (u32 t = 1; t < kept; ++t) sides += kernel[t];
        float sum = kernel[0] + 2.0f * sides;
        for (u32 t = 0; t < kept; ++t) kernel[t] /= sum;
        *count = kept;
    }
    __syncthreads();
    return *count;
}

// The value that the blur reads at place v of a line of `side` values, `stride` apart: padded where v is outside.
DEVICE float seen(const float *line, int v, int side, u32 stride, u32 blur) {
    if (v >= 0 && v < side) return line[(u32)v * stride];
    if (blur == ZERO) return 0.0f;
    int last = side - 1;
    v = v < 0 ? -v : last - (v - last);
    return line[(u32)v * stride];
}

DEVICE float blurred(const float *line, u32 at, u32 side, u32 stride, const float *kernel, u32 count, u32 blur) {
    float sum = kernel[0] * line[at * stride];
    for (u32 t = 1; t < count; ++t) {
        float before = seen(line, (int)at - (int)t, side, stride, blur), after = seen(line, at + t, side, stride, blur);
        sum = sum + kernel[t] * (before + after);
    }
    return sum;
}

// The blur along rows, from `planes` to `rows`, of the views that have one. Grid: side^2 / 256, views.
KERNEL(256, views_blur_rows)(const View *views, u32 side, const float *planes, float *rows) {
    SHARED float kernel[MOST_WEIGHTS];
    SHARED u32 kept;
    const View &view = views[blockIdx.y];
    if (view.blur == NONE) return;
    u32 count = gaussian(kernel, &kept, view.sigma, side), area = side * side;
    u32 at = blockIdx.x * blockDim.x + threadIdx.x;
    if (at >= area) return;
    u32 y = at / side, x = at % side;
    i64 first = (i64)blockIdx.y * 3 * area;
    for (u32 channel = 0; channel < 3; ++channel) {
        const float *line = planes + first + channel * area + y * side;
        rows[first + channel * area + at] = blurred(line, x, side, 1, kernel, count, view.blur);
    }
}

// The blur along columns, and the operators after it. Grid: side^2 / 256, views.
KERNEL(256, views_blur_columns)(const View *views, u32 side, const float *rows, u8 *out) {
    SHARED float kernel[MOST_WEIGHTS];
    SHARED u32 kept;
    const View &view = views[blockIdx.y];
    if (view.blur == NONE) return;
    u32 count = gaussian(kernel, &kept, view.sigma, side), area = side * side;
    u32 at = blockIdx.x * blockDim.x + threadIdx.x;
    if (at >= area) return;
    u32 y = at / side, x = at % side;
    const float *first = rows + (i64)blockIdx.y * 3 * area + x;
    float value[3];
#pragma unroll
    for (u32 channel = 0; channel < 3; ++channel) {
        value[channel] = clip(blurred(first + channel * area, y, side, side, kernel, count, view.blur));
    }
    Pixel pixel = {value[0], value[1], value[2]};
    for (u32 step = view.before_blur; step < view.steps; ++step) pixel = applied(pixel, view.kinds[step], view.values[step], 0.0f);
    finished(out + (i64)blockIdx.y * 3 * area, at, pixel);
}

//! Runs a graph as the operators are specified, in plain loops: <https://onnx.ai/onnx/operators>.

use std::collections::HashMap;

use simclr_exchange::onnx::messages::{GraphProto, NodeProto};

/// Sides and values, row-major.
#[derive(Clone, Debug)]
pub struct Array(pub Vec<usize>, pub Vec<f32>);

/// The outputs of a graph, by their names.
pub fn run(graph: &GraphProto, input: Array) -> HashMap<String, Array> {
    let mut values = HashMap::from([(graph.input[0].name.clone(), input)]);
    for constant in &graph.initializer {
        let sides: Vec<usize> = constant.dims.iter().map(|&side| side as usize).collect();
        let bytes = constant.raw_data.chunks_exact(4);
        let numbers: Vec<f32> = bytes.map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap())).collect();
        assert_eq!(sides.iter().product::<usize>(), numbers.len(), "{}", constant.name);
        assert!(values.insert(constant.name.clone(), Array(sides, numbers)).is_none(), "{}", constant.name);
    }
    for node in &graph.node {
        let inputs: Vec<&Array> = node.input.iter().map(|name| &values[name]).collect();
        let results = match node.op_type.as_str() {
            "Split" => halves(node, inputs[0]),
            _ => vec![compute(node, &inputs)],
        };
        assert_eq!(results.len(), node.output.len(), "{}", node.name);
        for (name, result) in node.output.iter().zip(results) {
            assert!(values.insert(name.clone(), result).is_none(), "{name}");
        }
    }
    graph.output.iter().map(|output| (output.name.clone(), values[&output.name].clone())).collect()
}

fn compute(node: &NodeProto, inputs: &[&Array]) -> Array {
    let Array(sides, x) = inputs[0];
    match node.op_type.as_str() {
        "Conv" => convolve(node, inputs),
        "MaxPool" => max_pool(node, inputs[0]),
        "AveragePool" => average_pool(node, inputs[0]),
        "Relu" => Array(sides.clone(), x.iter().map(|x| x.max(0.0)).collect()),
        "Identity" => inputs[0].clone(),
        "Add" => broadcast(inputs, |x, y| x + y),
        "Sub" => broadcast(inputs, |x, y| x - y),
        "Sigmoid" => Array(sides.clone(), x.iter().map(|x| 1.0 / (1.0 + (-x).exp())).collect()),
        "Mul" => broadcast(inputs, |x, y| x * y),
        "GlobalAveragePool" => {
            let pixels = sides[2] * sides[3];
            let mean =
                |image: &[f32]| (image.iter().map(|&x| f64::from(x)).sum::<f64>() / pixels as f64) as f32;
            Array(vec![sides[0], sides[1], 1, 1], x.chunks_exact(pixels).map(mean).collect())
        }
        "Flatten" => {
            assert_eq!(number(node, "axis"), 1);
            Array(vec![sides[0], sides[1..].iter().product()], x.clone())
        }
        "Gemm" => {
            assert_eq!(number(node, "transB"), 1);
            let Array(weight, w) = inputs[1];
            let rows = x.chunks_exact(sides[1]).flat_map(|row| {
                w.chunks_exact(weight[1]).enumerate().map(move |(output, weights)| {
                    let bias = inputs.get(2).map_or(0.0, |bias| f64::from(bias.1[output]));
                    (row.iter().zip(weights).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum::<f64>() + bias)
                        as f32
                })
            });
            Array(vec![sides[0], weight[0]], rows.collect())
        }
        other => panic!("{other}"),
    }
}

/// Two arrays of the same sides, or an image and one value a channel, (1, C, 1, 1).
fn broadcast(inputs: &[&Array], operation: impl Fn(f32, f32) -> f32) -> Array {
    let [Array(sides, x), Array(other, y)] = inputs else { panic!("two inputs") };
    let at = |i: usize| match sides == other {
        true => i,
        false => {
            assert!([1, sides[0]].contains(&other[0]) && other[1..] == [sides[1], 1, 1]);
            i / (sides[2] * sides[3]) % y.len()
        }
    };
    Array(sides.clone(), x.iter().enumerate().map(|(i, &x)| operation(x, y[at(i)])).collect())
}

/// Both halves along the channels.
fn halves(node: &NodeProto, Array(sides, x): &Array) -> Vec<Array> {
    assert!(number(node, "axis") == 1 && sides[1].is_multiple_of(2));
    let image: usize = sides[1..].iter().product();
    let half = |which: usize| {
        let own = x.chunks_exact(image / 2).skip(which).step_by(2).flatten().copied();
        Array([&[sides[0], sides[1] / 2], &sides[2..]].concat(), own.collect())
    };
    vec![half(0), half(1)]
}

fn convolve(node: &NodeProto, inputs: &[&Array]) -> Array {
    let (Array(sides, x), Array(kernel, w)) = (inputs[0], inputs[1]);
    let bias = |output: usize| inputs.get(2).map_or(0.0, |Array(_, bias)| f64::from(bias[output]));
    let (channels, outputs) = (sides[1], kernel[0]);
    assert_eq!((channels, &kernel[2..]), (kernel[1], &numbers(node, "kernel_shape")[..]));
    windows(node, sides, outputs, |image, output, taps| {
        let mut sum = bias(output);
        for &(tap, at) in taps {
            for channel in 0..channels {
                let x = x[(image * channels + channel) * sides[2] * sides[3] + at];
                let w = w[(output * channels + channel) * kernel[2] * kernel[3] + tap];
                sum += f64::from(x) * f64::from(w);
            }
        }
        sum as f32
    })
}

fn max_pool(node: &NodeProto, Array(sides, x): &Array) -> Array {
    windows(node, sides, sides[1], |image, channel, taps| {
        let values = taps.iter().map(|&(_, at)| x[(image * sides[1] + channel) * sides[2] * sides[3] + at]);
        values.fold(f32::NEG_INFINITY, f32::max)
    })
}

fn average_pool(node: &NodeProto, Array(sides, x): &Array) -> Array {
    let include_pad = number(node, "count_include_pad") == 1;
    windows(node, sides, sides[1], |image, channel, taps| {
        let values = taps.iter().map(|&(_, at)| x[(image * sides[1] + channel) * sides[2] * sides[3] + at]);
        let count = if include_pad { numbers(node, "kernel_shape").iter().product() } else { taps.len() };
        values.sum::<f32>() / count as f32
    })
}

/// Every output pixel from the taps of its window that lie within the image: the number of each in the window, and
/// its pixel.
fn windows(
    node: &NodeProto,
    sides: &[usize],
    outputs: usize,
    value: impl Fn(usize, usize, &[(usize, usize)]) -> f32,
) -> Array {
    let (kernel, strides) = (numbers(node, "kernel_shape"), numbers(node, "strides"));
    let pads = numbers(node, "pads");
    let whole = |axis: usize| sides[2 + axis] + pads[axis] + pads[2 + axis];
    let out: Vec<usize> = (0..2).map(|axis| (whole(axis) - kernel[axis]) / strides[axis] + 1).collect();
    let mut result = Vec::new();
    for image in 0..sides[0] {
        for output in 0..outputs {
            for (p, q) in (0..out[0]).flat_map(|p| (0..out[1]).map(move |q| (p, q))) {
                let mut taps = Vec::new();
                for (r, s) in (0..kernel[0]).flat_map(|r| (0..kernel[1]).map(move |s| (r, s))) {
                    let (y, x) = (p * strides[0] + r, q * strides[1] + s);
                    let inside =
                        |at: usize, axis: usize| (pads[axis]..sides[2 + axis] + pads[axis]).contains(&at);
                    if inside(y, 0) && inside(x, 1) {
                        taps.push((r * kernel[1] + s, (y - pads[0]) * sides[3] + x - pads[1]));
                    }
                }
                result.push(value(image, output, &taps));
            }
        }
    }
    Array(vec![sides[0], outputs, out[0], out[1]], result)
}

fn number(node: &NodeProto, name: &str) -> i64 {
    node.attribute.iter().find(|attribute| attribute.name == name).and_then(|attribute| attribute.i).unwrap()
}

fn numbers(node: &NodeProto, name: &str) -> Vec<usize> {
    let found = node.attribute.iter().find(|attribute| attribute.name == name).unwrap();
    found.ints.iter().map(|&number| number as usize).collect()
}

//! A network's layers as the nodes of a graph.

use simclr_engine::ops::{BatchNorm, Normalization};
use simclr_engine::{ParameterId, Parameters};
use simclr_nn::{AvgPool, Block, Conv, Downsample, HeadLayer, Linear, MaxPool, SelectiveKernels};
use simclr_train::{Model, TrainError};

use super::fold::{Folded, fold};
use super::messages::{
    AttributeProto, AttributeType, DataType, DimensionProto, GraphProto, NodeProto, TensorProto,
    TensorShapeProto, TensorTypeProto, TypeProto, ValueInfoProto,
};
use crate::Result;

/// The graph's input: images (batch, 3, S, S).
const IMAGES: &str = "images";
/// Its outputs: (batch, features) and (batch, dim).
const H: &str = "h";
const Z: &str = "z";

/// The graph from images to h and, if asked for, to z.
pub(super) fn graph(model: &Model, with_projection: bool) -> Result<GraphProto> {
    let mut graph = Graph { parameters: &model.parameters, nodes: Vec::new(), constants: Vec::new() };
    let stem = model.encoder.stem();
    let mut x = IMAGES.to_owned();
    if let Some(normalization) = &stem.normalization {
        x = graph.normalize(normalization, x)?;
    }
    for (conv, norm) in &stem.layers {
        x = graph.conv(conv, norm, x)?;
        x = graph.relu(x);
    }
    if let Some(pool) = stem.pool {
        let side = stem.layers.iter().fold(model.image_size(), |side, (conv, _)| side.div_ceil(conv.stride));
        x = graph.max_pool(pool, pool.padding_of(side), x);
    }
    for block in model.encoder.blocks() {
        x = graph.block(block, x)?;
    }
    x = graph.node("GlobalAveragePool", vec![x], "mean".to_owned(), Vec::new());
    graph.node("Flatten", vec![x], H.to_owned(), vec![int("axis", 1)]);
    let mut output = vec![rows(H, model.encoder.features(), "the encoder's features")];
    if with_projection {
        graph.head(model.head.layers())?;
        output.push(rows(Z, model.head.dim(), "the projection of h, not normalised"));
    }
    let side = model.image_size();
    Ok(GraphProto {
        node: graph.nodes,
        name: "encoder".to_owned(),
        initializer: graph.constants,
        doc_string: String::new(),
        input: vec![value(IMAGES, &[3, side, side], "RGB images, values from 0 to 1 (bytes divided by 255)")],
        output,
    })
}

struct Graph<'m> {
    parameters: &'m Parameters,
    nodes: Vec<NodeProto>,
    constants: Vec<TensorProto>,
}

impl Graph<'_> {
    /// Adds a node, which is named as its output is.
    fn node(
        &mut self,
        op: &str,
        input: Vec<String>,
        output: String,
        attribute: Vec<AttributeProto>,
    ) -> String {
        self.nodes.push(NodeProto {
            input,
            output: vec![output.clone()],
            name: output.clone(),
            op_type: op.to_owned(),
            attribute,
        });
        output
    }

    /// Normalises images. This cannot be folded into the first convolution, which pads normalised images with zeros.
    fn normalize(&mut self, normalization: &Normalization, x: String) -> Result<String> {
        let (scale, shift) = normalization.scale_and_shift().map_err(TrainError::from)?;
        let sides = [1, scale.len(), 1, 1];
        let scale = self.constant("images.scale".to_owned(), &sides, &scale);
        let shift = self.constant("images.shift".to_owned(), &sides, &shift);
        let scaled = self.node("Mul", vec![x, scale], "images.scaled".to_owned(), Vec::new());
        Ok(self.node("Add", vec![scaled, shift], "images.normalized".to_owned(), Vec::new()))
    }

    /// A convolution with its BatchNorm.
    fn conv(&mut self, conv: &Conv, norm: &BatchNorm, x: String) -> Result<String> {
        let name = self.layer(conv.weight);
        let folded = fold(self.parameters, conv.weight, None, Some(norm))?;
        let attributes = window(&folded.shape[2..], conv.stride, [conv.padding; 2]);
        let inputs = self.with_weights(&name, x, folded);
        Ok(self.node("Conv", inputs, name, attributes))
    }

    fn relu(&mut self, x: String) -> String {
        let name = format!("{x}.relu");
        self.node("Relu", vec![x], name, Vec::new())
    }

    fn max_pool(&mut self, pool: MaxPool, padding: [usize; 2], x: String) -> String {
        let attributes = window(&[pool.side; 2], pool.stride, padding);
        self.node("MaxPool", vec![x], "max".to_owned(), attributes)
    }

    /// A 2 x 2 average pool, named after the convolution that follows it.
    fn avg_pool(&mut self, AvgPool { stride, zeros }: AvgPool, conv: &Conv, x: String) -> String {
        let name = format!("{}.mean", self.layer(conv.weight));
        let mut attributes =
            vec![ints("kernel_shape", &[2; 2]), ints("pads", &[0, 0, 1, 1]), ints("strides", &[stride; 2])];
        attributes.push(int("count_include_pad", zeros.into()));
        self.node("AveragePool", vec![x], name, attributes)
    }

    /// A residual block.
    fn block(&mut self, block: &Block, x: String) -> Result<String> {
        let shortcut = match &block.downsample {
            Some(Downsample { pool, conv, norm }) => {
                let x = match *pool {
                    Some(pool) => self.avg_pool(pool, conv, x.clone()),
                    None => x.clone(),
                };
                self.conv(conv, norm, x)?
            }
            None => x.clone(),
        };
        let mut y = x;
        for (i, (conv, norm)) in block.layers.iter().enumerate() {
            // The streams went through their ReLU before they were mixed.
            if i > 0 && !(block.selective.is_some() && i == Block::STREAMS + 1) {
                y = self.relu(y);
            }
            y = self.conv(conv, norm, y)?;
            if let Some(selective) = block.selective.as_ref().filter(|_| i == Block::STREAMS) {
                y = self.relu(y);
                y = self.select(selective, y)?;
            }
        }
        let sum = format!("{y}.sum");
        let sum = self.node("Add", vec![y, shortcut], sum, Vec::new());
        Ok(self.relu(sum))
    }

    /// Selective kernels: the softmax over two logits is the sigmoid of their difference.
    fn select(&mut self, selective: &SelectiveKernels, x: String) -> Result<String> {
        let [first, second] = self.split(x);
        let sum = self.binary("Add", &first, &second, "sum");
        let mean = self.node("GlobalAveragePool", vec![sum.clone()], format!("{sum}.mean"), Vec::new());
        let few = self.pointwise(&selective.reduce, Some(&selective.norm), mean)?;
        let few = self.relu(few);
        let logits = self.pointwise(&selective.select, None, few)?;
        let [to_first, to_second] = self.split(logits);
        let logit = self.binary("Sub", &to_first, &to_second, "difference");
        let share = self.node("Sigmoid", vec![logit.clone()], format!("{logit}.share"), Vec::new());
        let difference = self.binary("Sub", &first, &second, "difference");
        let part = self.binary("Mul", &difference, &share, "part");
        Ok(self.binary("Add", &second, &part, "mixed"))
    }

    /// Both halves of a value's channels.
    fn split(&mut self, x: String) -> [String; 2] {
        let halves = ["first", "second"].map(|half| format!("{x}.{half}"));
        self.nodes.push(NodeProto {
            name: format!("{x}.split"),
            input: vec![x],
            output: halves.to_vec(),
            op_type: "Split".to_owned(),
            attribute: vec![int("axis", 1)],
        });
        halves
    }

    /// Applies an operator to two values; the result is named after the first.
    fn binary(&mut self, op: &str, a: &str, b: &str, name: &str) -> String {
        self.node(op, vec![a.to_owned(), b.to_owned()], format!("{a}.{name}"), Vec::new())
    }

    /// A dense layer on the channels of a pixel, with its BatchNorm if it has one.
    fn pointwise(&mut self, linear: &Linear, norm: Option<&BatchNorm>, x: String) -> Result<String> {
        let name = self.layer(linear.weight);
        let mut folded = fold(self.parameters, linear.weight, linear.bias, norm)?;
        folded.shape.extend([1, 1]);
        let attributes = window(&[1, 1], 1, [0; 2]);
        let inputs = self.with_weights(&name, x, folded);
        Ok(self.node("Conv", inputs, name, attributes))
    }

    /// The projection head, from h to z.
    fn head(&mut self, layers: &[HeadLayer]) -> Result<()> {
        let mut x = H.to_owned();
        for layer in layers {
            let name = self.layer(layer.linear.weight);
            let folded = fold(self.parameters, layer.linear.weight, layer.linear.bias, layer.norm.as_ref())?;
            let inputs = self.with_weights(&name, x, folded);
            x = self.node("Gemm", inputs, name, vec![int("transB", 1)]);
            if layer.relu {
                x = self.relu(x);
            }
        }
        self.node("Identity", vec![x], Z.to_owned(), Vec::new());
        Ok(())
    }

    /// A layer's name: the name of its weights without `.weight`.
    fn layer(&self, weight: ParameterId) -> String {
        let name = self.parameters.name(weight);
        name.strip_suffix(".weight").unwrap_or(name).to_owned()
    }

    /// Adds a layer's weights as constants; returns the layer's inputs.
    fn with_weights(&mut self, layer: &str, x: String, folded: Folded) -> Vec<String> {
        let Folded { shape, weight, bias } = folded;
        let mut inputs = vec![x, self.constant(format!("{layer}.weight"), &shape, &weight)];
        if let Some(bias) = bias {
            inputs.push(self.constant(format!("{layer}.bias"), &[bias.len()], &bias));
        }
        inputs
    }

    fn constant(&mut self, name: String, shape: &[usize], values: &[f32]) -> String {
        self.constants.push(TensorProto {
            dims: shape.iter().map(|&side| side as i64).collect(),
            data_type: DataType::Float.into(),
            name: name.clone(),
            raw_data: values.iter().flat_map(|value| value.to_le_bytes()).collect(),
        });
        name
    }
}

fn int(name: &str, value: i64) -> AttributeProto {
    AttributeProto {
        name: name.to_owned(),
        i: Some(value),
        ints: Vec::new(),
        r#type: AttributeType::Int.into(),
    }
}

fn ints(name: &str, values: &[usize]) -> AttributeProto {
    let ints = values.iter().map(|&value| value as i64).collect();
    AttributeProto { name: name.to_owned(), i: None, ints, r#type: AttributeType::Ints.into() }
}

/// How a convolution or a pool steps over its input.
fn window(sides: &[usize], stride: usize, [before, after]: [usize; 2]) -> Vec<AttributeProto> {
    let pads = [before, before, after, after];
    vec![ints("kernel_shape", sides), ints("pads", &pads), ints("strides", &[stride; 2])]
}

fn rows(name: &str, width: usize, doc: &str) -> ValueInfoProto {
    value(name, &[width], doc)
}

/// An input or output, with any number of images.
fn value(name: &str, sides: &[usize], doc: &str) -> ValueInfoProto {
    let batch = DimensionProto { dim_value: None, dim_param: Some("batch".to_owned()) };
    let sides = sides.iter().map(|&side| DimensionProto { dim_value: Some(side as i64), dim_param: None });
    let shape = TensorShapeProto { dim: std::iter::once(batch).chain(sides).collect() };
    let tensor = TensorTypeProto { elem_type: DataType::Float.into(), shape: Some(shape) };
    ValueInfoProto {
        name: name.to_owned(),
        r#type: Some(TypeProto { tensor_type: Some(tensor) }),
        doc_string: doc.to_owned(),
    }
}

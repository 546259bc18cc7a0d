//! Translates TensorFlow 2's names of variables to those of version 1.
//!
//! A TensorFlow 2 checkpoint has a graph of objects: attributes and list indices lead from the root to each variable.
//! The name in the index is one of the paths to it, not always the one through the official code's attributes
//! (`model.resnet_model.block_groups[0]...`).

use std::collections::BTreeMap;

use prost::Message;

use super::{CLASSIFIER, CONV, ENCODER, HEAD, NORM};

/// The name under which a checkpoint stores the graph.
pub(super) const GRAPH: &str = "_CHECKPOINTABLE_OBJECT_GRAPH";

/// Attributes on the path to a layer, in the order in which the layers that they hold are created.
const ATTRIBUTES: [&str; 21] = [
    "initial_conv_relu_max_pool",
    "block_groups",
    "layers",
    "projection_layers",
    "shortcut_layers",
    "conv_relu_dropblock_layers",
    "conv2d_bn_layers",
    "conv2d_fixed_padding",
    "batch_norm_relu",
    "conv2d_0",
    "batch_norm_relu_1",
    "conv2d_1",
    "conv2d",
    "bn",
    "se_layer",
    "se_reduce",
    "se_expand",
    "linear_layers",
    "linear_layer",
    "dense",
    "bn_relu",
];
/// Those among them that list a shortcut's layers: a convolution and its BatchNorm, in a ResNet-D after pools.
const SHORTCUTS: [&str; 2] = ["projection_layers", "shortcut_layers"];
const PLAIN_SHORTCUT: usize = 2;
/// A layer's variables.
const PARTS: [&str; 6] = ["kernel", "bias", "gamma", "beta", "moving_mean", "moving_variance"];
/// The most steps over the graph, so that cycles end; a ResNet-18 takes some 250.
const STEPS: usize = 1 << 16;
const DEPTH: usize = 16;

/// `trackable_object_graph.proto` of TensorFlow, the fields that are read.
#[derive(Clone, PartialEq, Message)]
struct ObjectGraph {
    #[prost(message, repeated, tag = "1")]
    nodes: Vec<Object>,
}

#[derive(Clone, PartialEq, Message)]
struct Object {
    #[prost(message, repeated, tag = "1")]
    children: Vec<Reference>,
    /// A variable has exactly one attribute.
    #[prost(message, repeated, tag = "2")]
    attributes: Vec<SerializedTensor>,
}

#[derive(Clone, PartialEq, Message)]
struct Reference {
    #[prost(int32, tag = "1")]
    node_id: i32,
    #[prost(string, tag = "2")]
    local_name: String,
}

#[derive(Clone, PartialEq, Message)]
struct SerializedTensor {
    #[prost(string, tag = "3")]
    checkpoint_key: String,
}

/// The variables of a layer, each with its name within the layer and in the checkpoint.
type Layer = Vec<(&'static str, String)>;

/// What a graph says about a checkpoint.
#[derive(Debug, Default)]
pub(super) struct Told {
    /// Version 1's names of variables, by their names in the checkpoint.
    pub names: BTreeMap<String, String>,
    /// Whether shortcuts begin with a pool. In a network without gates and with the stem for small images, no variable
    /// shows this.
    pub pooled: bool,
}

/// Reads a graph.
///
/// # Errors
/// A description of a damaged graph.
pub(super) fn read(graph: &[u8]) -> Result<Told, String> {
    let damaged = |what: String| format!("its `{GRAPH}` is damaged: {what}");
    let graph = ObjectGraph::decode(graph).map_err(|error| damaged(error.to_string()))?;
    let root = graph.nodes.first().ok_or_else(|| damaged("it is empty".to_owned()))?;
    let model = graph.child(root, "model").unwrap_or(root);
    let walk = |name: &str| {
        let mut walk = Walk { graph: &graph, steps: 0, layers: BTreeMap::new(), pooled: false };
        match graph.child(model, name) {
            Some(part) => walk.visit(part, &mut Vec::new()).map(|()| walk).map_err(damaged),
            None => Ok(walk),
        }
    };
    let mut names = BTreeMap::new();
    let [mut convolutions, mut norms] = [0, 0];
    let Walk { layers, pooled, .. } = walk("resnet_model")?;
    for layer in layers.into_values() {
        let (kind, count) = match is_norm(&layer) {
            true => (NORM, &mut norms),
            false => (CONV, &mut convolutions),
        };
        let name = if *count == 0 { kind.to_owned() } else { format!("{kind}_{count}") };
        *count += 1;
        names.extend(layer.into_iter().map(|(part, key)| (key, format!("{ENCODER}{name}/{part}"))));
    }
    for (path, layer) in walk("_projection_head")?.layers {
        // First the list, then the index in it.
        let index = path.get(1).copied().unwrap_or(0);
        let kind = if is_norm(&layer) { NORM } else { "dense" };
        names.extend(layer.into_iter().map(|(part, key)| (key, format!("{HEAD}nl_{index}/{kind}/{part}"))));
    }
    for layer in walk("supervised_head")?.layers.into_values() {
        names.extend(layer.into_iter().map(|(part, key)| (key, format!("{CLASSIFIER}{part}"))));
    }
    Ok(Told { names, pooled })
}

fn is_norm(layer: &Layer) -> bool {
    layer.iter().any(|(part, _)| *part == "gamma")
}

impl ObjectGraph {
    fn child(&self, object: &Object, name: &str) -> Option<&Object> {
        let reference = object.children.iter().find(|child| child.local_name == name)?;
        self.nodes.get(usize::try_from(reference.node_id).ok()?)
    }
}

/// A walk over all layers below an object.
struct Walk<'g> {
    graph: &'g ObjectGraph,
    steps: usize,
    /// By the paths to them, as numbers that sort in the order of creation.
    layers: BTreeMap<Vec<usize>, Layer>,
    /// Whether a shortcut with more layers than [`PLAIN_SHORTCUT`] was among them.
    pooled: bool,
}

impl Walk<'_> {
    fn visit(&mut self, object: &Object, path: &mut Vec<usize>) -> Result<(), String> {
        // Counted before any child is visited: an object with many children may be reached often.
        self.steps = self.steps.saturating_add(object.children.len());
        if self.steps > STEPS || path.len() > DEPTH {
            return Err("it leads in circles".to_owned());
        }
        let mut layer = Layer::new();
        for part in PARTS {
            let variable = self.graph.child(object, part).and_then(|variable| variable.attributes.first());
            layer.extend(variable.map(|tensor| (part, tensor.checkpoint_key.clone())));
        }
        if !layer.is_empty() {
            self.layers.insert(path.clone(), layer);
            return Ok(());
        }
        for child in &object.children {
            let name = child.local_name.as_str();
            let known = ATTRIBUTES.iter().position(|known| *known == name);
            let node = usize::try_from(child.node_id).ok().and_then(|id| self.graph.nodes.get(id));
            if let (Some(place), Some(object)) = (known.or_else(|| name.parse().ok()), node) {
                let mut places = object.children.iter().filter_map(|child| child.local_name.parse().ok());
                self.pooled |=
                    SHORTCUTS.contains(&name) && places.any(|place: usize| place >= PLAIN_SHORTCUT);
                path.push(place);
                self.visit(object, path)?;
                path.pop();
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(children: &[(i32, &str)], key: &str) -> Object {
        let children = children
            .iter()
            .map(|&(node_id, name)| Reference { node_id, local_name: name.to_owned() })
            .collect();
        let keys = (!key.is_empty()).then(|| SerializedTensor { checkpoint_key: key.to_owned() });
        Object { children, attributes: keys.into_iter().collect() }
    }

    fn names_of(nodes: Vec<Object>) -> Result<BTreeMap<String, String>, String> {
        read(&ObjectGraph { nodes }.encode_to_vec()).map(|told| told.names)
    }

    #[test]
    fn layers_are_numbered_in_the_order_of_the_code() {
        let graph = vec![
            object(&[(1, "model")], ""),
            object(&[(2, "resnet_model")], ""),
            // The second list is met first. Children that lead nowhere, or not to a layer, are skipped.
            object(&[(3, "block_groups"), (4, "initial_conv_relu_max_pool"), (77, "bn"), (2, "layer-0")], ""),
            object(&[(5, "0")], ""),
            object(&[(6, "0")], ""),
            object(&[(7, "kernel")], ""),
            object(&[(8, "kernel")], ""),
            object(&[], "second"),
            object(&[], "first"),
        ];
        let expected = [("first", "base_model/conv2d/kernel"), ("second", "base_model/conv2d_1/kernel")];
        let expected = expected.map(|(key, name)| (key.to_owned(), name.to_owned()));
        assert_eq!(names_of(graph).unwrap(), BTreeMap::from(expected));
    }

    #[test]
    fn pools_in_shortcuts_are_seen() {
        for (layers, pooled) in [(&["0", "1"][..], false), (&["0", "1", "2"], true)] {
            let layers: Vec<_> = layers.iter().map(|&place| (3, place)).collect();
            let graph = vec![
                object(&[(1, "resnet_model")], ""),
                object(&[(2, "shortcut_layers")], ""),
                object(&layers, ""),
                object(&[], ""),
            ];
            assert_eq!(read(&ObjectGraph { nodes: graph }.encode_to_vec()).unwrap().pooled, pooled);
        }
    }

    #[test]
    fn circles_end() {
        let many: Vec<(i32, String)> = (0..100).map(|i| (2, i.to_string())).collect();
        let many: Vec<(i32, &str)> = many.iter().map(|(node, name)| (*node, name.as_str())).collect();
        let graph = vec![object(&[(1, "model")], ""), object(&[(2, "resnet_model")], ""), object(&many, "")];
        assert!(names_of(graph).unwrap_err().contains("circles"));
        assert!(names_of(Vec::new()).unwrap_err().contains("empty"));
        assert!(read(b"\x0a\x7f").unwrap_err().contains("damaged"));
    }
}

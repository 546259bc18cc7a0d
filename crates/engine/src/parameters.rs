//! Named tensors of a network: trained ones, and running averages kept beside them.

use std::collections::HashMap;
use std::sync::Arc;

use crate::spare::Spare;
use crate::{EngineError, Result, Tensor};

/// A tensor's place among [`Parameters`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
pub struct ParameterId(usize);

impl ParameterId {
    /// The id of an index, as returned by [`ParameterId::index`].
    pub fn from_index(index: usize) -> ParameterId {
        ParameterId(index)
    }

    /// The place, from 0.
    pub fn index(self) -> usize {
        self.0
    }
}

/// What a tensor is for, which decides how it is trained.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ParameterKind {
    /// Weights of a convolution or a dense layer: decayed, and adapted by LARS.
    Weight,
    /// The bias of a convolution or a dense layer: neither decayed nor adapted.
    Bias,
    /// Gamma or beta of a BatchNorm: neither decayed nor adapted.
    Norm,
    /// A running average: not trained, but saved with the rest.
    Buffer,
}

impl ParameterKind {
    /// Whether an optimiser updates it.
    pub fn is_trained(self) -> bool {
        self != ParameterKind::Buffer
    }
}

/// The named tensors of a network, in the order in which they were added.
#[derive(Clone, Debug, Default)]
pub struct Parameters {
    entries: Vec<(String, ParameterKind, Tensor)>,
    by_name: HashMap<String, ParameterId>,
    pub(crate) spare: Arc<Spare>,
}

impl Parameters {
    /// An empty list.
    pub fn new() -> Parameters {
        Parameters::default()
    }

    /// Adds a tensor under a name that is not taken.
    ///
    /// # Errors
    /// [`EngineError::DuplicateParameter`] if the name is taken: nothing is added.
    pub fn add(
        &mut self,
        name: impl Into<String>,
        kind: ParameterKind,
        value: Tensor,
    ) -> Result<ParameterId> {
        let name = name.into();
        if self.by_name.contains_key(&name) {
            return Err(EngineError::DuplicateParameter(name));
        }
        let id = ParameterId(self.entries.len());
        self.by_name.insert(name.clone(), id);
        self.entries.push((name, kind, value));
        Ok(id)
    }

    /// How many tensors there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The ids of all tensors, in order.
    pub fn ids(&self) -> impl Iterator<Item = ParameterId> + use<> {
        (0..self.entries.len()).map(ParameterId)
    }

    /// The id of the tensor with this name.
    pub fn find(&self, name: &str) -> Option<ParameterId> {
        self.by_name.get(name).copied()
    }

    /// A tensor's name.
    pub fn name(&self, id: ParameterId) -> &str {
        &self.entries[id.0].0
    }

    /// What a tensor is for.
    pub fn kind(&self, id: ParameterId) -> ParameterKind {
        self.entries[id.0].1
    }

    /// A tensor.
    pub fn get(&self, id: ParameterId) -> &Tensor {
        &self.entries[id.0].2
    }

    /// A tensor, to be changed in place.
    pub fn get_mut(&mut self, id: ParameterId) -> &mut Tensor {
        &mut self.entries[id.0].2
    }

    /// Replaces a tensor by one of the same shape.
    ///
    /// # Errors
    /// [`EngineError::Shape`](crate::EngineError::Shape) if it has another shape.
    pub fn set(&mut self, id: ParameterId, value: Tensor) -> Result<()> {
        let (_, _, old) = &mut self.entries[id.0];
        if old.shape() != value.shape() {
            return Err(EngineError::shape("parameter", format!("{:?}", old.shape()), value.shape()));
        }
        *old = value;
        Ok(())
    }

    /// The name, kind and value of each tensor, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, ParameterKind, &Tensor)> {
        self.entries.iter().map(|(name, kind, value)| (name.as_str(), *kind, value))
    }

    /// The id, kind and value of each tensor, in order, to be changed in place.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (ParameterId, ParameterKind, &mut Tensor)> {
        self.entries.iter_mut().enumerate().map(|(i, (_, kind, value))| (ParameterId(i), *kind, value))
    }

    /// The number of trained values.
    pub fn trained_values(&self) -> usize {
        self.entries.iter().filter(|(_, kind, _)| kind.is_trained()).map(|(_, _, value)| value.len()).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Device;

    #[test]
    fn a_name_that_is_taken_is_refused_and_stays_that_of_the_first() {
        let device = Device::cpu(1).unwrap();
        let of = |len| Tensor::zeros(&device, &[len]).unwrap();
        let mut parameters = Parameters::new();
        let first = parameters.add("w", ParameterKind::Weight, of(1)).unwrap();
        let refused = parameters.add("w", ParameterKind::Weight, of(2)).unwrap_err();
        assert!(matches!(refused, EngineError::DuplicateParameter(name) if name == "w"));
        parameters.add("v", ParameterKind::Weight, of(3)).unwrap();
        assert_eq!((parameters.find("w"), parameters.len()), (Some(first), 2));
        assert_eq!(parameters.get(first).len(), 1);
    }
}

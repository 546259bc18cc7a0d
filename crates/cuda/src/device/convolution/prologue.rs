//! What a convolution's input passes as it is read: a BatchNorm's scale and shift, then a ReLU. Each is a pointwise
//! operation of cuDNN's on what the one before leaves, which is never in memory.

use cudarc::cudnn::sys::{
    cudnnBackendAttributeName_t as Name, cudnnBackendAttributeType_t as Type,
    cudnnBackendDescriptorType_t as Kind, cudnnPointwiseMode_t as Mode,
};

use super::backend::Descriptor;
use super::operation::{NORM, between, data_type, tensor};
use crate::{ElementType, Result};

/// The numbers of what is scaled, shifted, and passed through the ReLU: behind those of the operands.
const BETWEEN: [i64; 3] = [8, 9, 10];

/// The operations, in their order, and what they refer to.
pub(super) struct Prologue {
    pub operations: Vec<Descriptor>,
    /// What the operations compute.
    pub described: Vec<Descriptor>,
    /// Scale and shift, and what lies between the operations.
    pub tensors: Vec<Descriptor>,
    /// What the convolution reads.
    pub activation: Descriptor,
}

impl Prologue {
    /// That of an input of four sizes in cuDNN's order.
    pub fn new(x: &Descriptor, element: ElementType, sizes: [usize; 4]) -> Result<Prologue> {
        let channel = [1, sizes[1], 1, 1];
        let [scale, shift] = [tensor(NORM[0], element, channel)?, tensor(NORM[1], element, channel)?];
        let scaled = between(BETWEEN[0], element, sizes)?;
        let shifted = between(BETWEEN[1], element, sizes)?;
        let activation = between(BETWEEN[2], element, sizes)?;
        let described = vec![
            described(Mode::CUDNN_POINTWISE_MUL)?,
            described(Mode::CUDNN_POINTWISE_ADD)?,
            described(Mode::CUDNN_POINTWISE_RELU_FWD)?,
        ];
        let operations = vec![
            operation(&described[0], x, Some(&scale), &scaled)?,
            operation(&described[1], &scaled, Some(&shift), &shifted)?,
            operation(&described[2], &shifted, None, &activation)?,
        ];
        Ok(Prologue { operations, described, tensors: vec![scale, shift, scaled, shifted], activation })
    }
}

/// What a pointwise operation computes, in f32.
fn described(mode: Mode) -> Result<Descriptor> {
    let pointwise = Descriptor::new(Kind::CUDNN_BACKEND_POINTWISE_DESCRIPTOR)?;
    pointwise.constant(Name::CUDNN_ATTR_POINTWISE_MODE, Type::CUDNN_TYPE_POINTWISE_MODE, mode as u32)?;
    let float = data_type(ElementType::F32) as u32;
    pointwise.constant(Name::CUDNN_ATTR_POINTWISE_MATH_PREC, Type::CUDNN_TYPE_DATA_TYPE, float)?;
    pointwise.finalize()?;
    Ok(pointwise)
}

/// The operation on x, and where it takes two, on a value for each channel.
fn operation(
    described: &Descriptor,
    x: &Descriptor,
    channels: Option<&Descriptor>,
    y: &Descriptor,
) -> Result<Descriptor> {
    let operation = Descriptor::new(Kind::CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR)?;
    operation.descriptors(Name::CUDNN_ATTR_OPERATION_POINTWISE_PW_DESCRIPTOR, &[described])?;
    operation.descriptors(Name::CUDNN_ATTR_OPERATION_POINTWISE_XDESC, &[x])?;
    if let Some(channels) = channels {
        operation.descriptors(Name::CUDNN_ATTR_OPERATION_POINTWISE_BDESC, &[channels])?;
    }
    operation.descriptors(Name::CUDNN_ATTR_OPERATION_POINTWISE_YDESC, &[y])?;
    operation.finalize()?;
    Ok(operation)
}

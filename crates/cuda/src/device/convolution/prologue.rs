//! A BatchNorm's scale and shift and a ReLU, fused into the convolution that reads their result. Each is a pointwise
//! operation of cuDNN on the previous one's result, which is never in memory.

use cudarc::cudnn::sys::{
    cudnnBackendAttributeName_t as Name, cudnnBackendAttributeType_t as Type,
    cudnnBackendDescriptorType_t as Kind, cudnnPointwiseMode_t as Mode,
};

use super::backend::Descriptor;
use super::operation::{NORM, between, data_type, tensor};
use crate::{ElementType, Result};

/// The tensor numbers of the scaled, the shifted and the rectified input: they follow those of the operands.
const BETWEEN: [i64; 3] = [8, 9, 10];

/// The operations, in order, and the descriptors that they refer to.
pub(super) struct Prologue {
    pub operations: Vec<Descriptor>,
    /// The descriptors of the operations' functions.
    pub described: Vec<Descriptor>,
    /// Scale, shift, and the tensors between the operations.
    pub tensors: Vec<Descriptor>,
    /// The tensor that the convolution reads.
    pub activation: Descriptor,
}

impl Prologue {
    /// The prologue for an input x with these sizes, in cuDNN's order.
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

/// The descriptor of a pointwise function, computed in f32.
fn described(mode: Mode) -> Result<Descriptor> {
    let pointwise = Descriptor::new(Kind::CUDNN_BACKEND_POINTWISE_DESCRIPTOR)?;
    pointwise.constant(Name::CUDNN_ATTR_POINTWISE_MODE, Type::CUDNN_TYPE_POINTWISE_MODE, mode as u32)?;
    let float = data_type(ElementType::F32) as u32;
    pointwise.constant(Name::CUDNN_ATTR_POINTWISE_MATH_PREC, Type::CUDNN_TYPE_DATA_TYPE, float)?;
    pointwise.finalize()?;
    Ok(pointwise)
}

/// A pointwise operation on x and, if it takes two operands, on a value for each channel.
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

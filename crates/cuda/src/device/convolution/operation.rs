//! A convolution as a cuDNN graph: an operation on three tensors, channels last, and the operations fused before and
//! after it.

use cudarc::cudnn::sys::{
    cudnnBackendAttributeName_t as Name, cudnnBackendAttributeType_t as Type,
    cudnnBackendDescriptorType_t as Kind, cudnnConvolutionMode_t, cudnnDataType_t, cudnnGenStatsMode_t,
    cudnnHandle_t,
};
use simclr_kernels::Conv2dGeometry;

use super::backend::Descriptor;
use super::prologue::Prologue;
use super::{ConvolutionPass, Key, Operands, sums_apart};
use crate::{ElementType, Result};

/// The numbers that identify a plan's operands: x, w, y, or their gradients,
const IDS: [i64; 3] = [1, 2, 3];
/// sums, and sums of squares,
const SUMS: [i64; 2] = [4, 5];
/// scale and shift.
pub(super) const NORM: [i64; 2] = [6, 7];
/// The alignment of addresses in bytes, which `Slice` guarantees.
const ALIGNMENT: i64 = 16;

/// A finalised graph of one convolution, with scale, shift and ReLU before it and sums after it if the key has them,
/// and the descriptors that it refers to.
pub(super) struct Operation {
    // Fields are dropped in this order: descriptors go before those that they refer to.
    pub graph: Descriptor,
    _operations: Vec<Descriptor>,
    _described: Vec<Descriptor>,
    _tensors: Vec<Descriptor>,
}

pub(super) fn data_type(element: ElementType) -> cudnnDataType_t {
    match element {
        ElementType::F32 => cudnnDataType_t::CUDNN_DATA_FLOAT,
        ElementType::Bf16 => cudnnDataType_t::CUDNN_DATA_BFLOAT16,
        ElementType::F16 => cudnnDataType_t::CUDNN_DATA_HALF,
    }
}

/// A tensor with sizes in cuDNN's order (outermost, channels, height, width), and channels last in memory.
pub(super) fn tensor(id: i64, element: ElementType, sizes: [usize; 4]) -> Result<Descriptor> {
    let tensor = unfinished(id, element, sizes)?;
    tensor.finalize()?;
    Ok(tensor)
}

/// A virtual tensor: a result that one operation passes to the next, and that is never in memory.
pub(super) fn between(id: i64, element: ElementType, sizes: [usize; 4]) -> Result<Descriptor> {
    let tensor = unfinished(id, element, sizes)?;
    tensor.boolean(Name::CUDNN_ATTR_TENSOR_IS_VIRTUAL, true)?;
    tensor.finalize()?;
    Ok(tensor)
}

fn unfinished(id: i64, element: ElementType, sizes: [usize; 4]) -> Result<Descriptor> {
    let [n, c, h, w] = sizes.map(|size| size as i64);
    let tensor = Descriptor::new(Kind::CUDNN_BACKEND_TENSOR_DESCRIPTOR)?;
    let of = data_type(element) as u32;
    tensor.constant(Name::CUDNN_ATTR_TENSOR_DATA_TYPE, Type::CUDNN_TYPE_DATA_TYPE, of)?;
    tensor.integers(Name::CUDNN_ATTR_TENSOR_DIMENSIONS, &[n, c, h, w])?;
    tensor.integers(Name::CUDNN_ATTR_TENSOR_STRIDES, &[h * w * c, 1, w * c, c])?;
    tensor.integers(Name::CUDNN_ATTR_TENSOR_UNIQUE_ID, &[id])?;
    tensor.integers(Name::CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT, &[ALIGNMENT])?;
    Ok(tensor)
}

impl Operation {
    /// The operation of a key. If its result is added, the factor of the old values is 1.
    pub fn new(handle: cudnnHandle_t, key: &Key) -> Result<Operation> {
        let g = &key.geometry;
        let [of_x, of_w, of_y] = key.types();
        let shape_of_x = [g.batch, g.in_channels, g.in_height, g.in_width];
        let x = tensor(IDS[0], of_x, shape_of_x)?;
        let w = tensor(IDS[1], of_w, [g.out_channels, g.in_channels, g.kernel_height, g.kernel_width])?;
        let y = tensor(IDS[2], of_y, [g.batch, g.out_channels, g.out_height(), g.out_width()])?;

        let convolution = convolution(g)?;
        let (kind, names) = operation_names(key.pass);
        let prologue = key.normalised.then(|| Prologue::new(&x, of_x, shape_of_x)).transpose()?;
        let operation = Descriptor::new(kind)?;
        operation.descriptors(names[0], &[&convolution])?;
        operation.descriptors(names[1], &[prologue.as_ref().map_or(&x, |prologue| &prologue.activation)])?;
        operation.descriptors(names[2], &[&w])?;
        operation.descriptors(names[3], &[&y])?;
        operation.float(names[4], 1.0)?;
        operation.float(names[5], if key.adds { 1.0 } else { 0.0 })?;
        operation.finalize()?;

        let (mut operations, mut tensors, mut described) = (Vec::new(), vec![x, w, y], vec![convolution]);
        if let Some(prologue) = prologue {
            operations.extend(prologue.operations);
            described.extend(prologue.described);
            tensors.extend(prologue.tensors);
            tensors.push(prologue.activation);
        }
        operations.push(operation);
        if key.pass == ConvolutionPass::ForwardWithSums {
            let of = [1, g.out_channels, 1, 1];
            let [sum, square] =
                [tensor(SUMS[0], ElementType::F32, of)?, tensor(SUMS[1], ElementType::F32, of)?];
            operations.push(sums(&tensors[2], &sum, &square)?);
            tensors.extend([sum, square]);
        }

        let graph = Descriptor::new(Kind::CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR)?;
        let parts: Vec<&Descriptor> = operations.iter().collect();
        graph.descriptors(Name::CUDNN_ATTR_OPERATIONGRAPH_OPS, &parts)?;
        graph.handle(Name::CUDNN_ATTR_OPERATIONGRAPH_HANDLE, handle)?;
        graph.finalize()?;
        Ok(Operation { graph, _operations: operations, _described: described, _tensors: tensors })
    }
}

/// The convolution's padding and stride, with sums in f32.
fn convolution(g: &Conv2dGeometry) -> Result<Descriptor> {
    let convolution = Descriptor::new(Kind::CUDNN_BACKEND_CONVOLUTION_DESCRIPTOR)?;
    let float = data_type(ElementType::F32) as u32;
    convolution.constant(Name::CUDNN_ATTR_CONVOLUTION_COMP_TYPE, Type::CUDNN_TYPE_DATA_TYPE, float)?;
    let mode = cudnnConvolutionMode_t::CUDNN_CROSS_CORRELATION as u32;
    convolution.constant(Name::CUDNN_ATTR_CONVOLUTION_CONV_MODE, Type::CUDNN_TYPE_CONVOLUTION_MODE, mode)?;
    let (padding, stride) = ([g.padding as i64; 2], [g.stride as i64; 2]);
    convolution.integers(Name::CUDNN_ATTR_CONVOLUTION_SPATIAL_DIMS, &[2])?;
    convolution.integers(Name::CUDNN_ATTR_CONVOLUTION_PRE_PADDINGS, &padding)?;
    convolution.integers(Name::CUDNN_ATTR_CONVOLUTION_POST_PADDINGS, &padding)?;
    convolution.integers(Name::CUDNN_ATTR_CONVOLUTION_DILATIONS, &[1, 1])?;
    convolution.integers(Name::CUDNN_ATTR_CONVOLUTION_FILTER_STRIDES, &stride)?;
    convolution.finalize()?;
    Ok(convolution)
}

/// The kind of a pass's operation, and the names of its attributes: convolution, x, w, y, alpha, beta.
fn operation_names(pass: ConvolutionPass) -> (Kind, [Name; 6]) {
    match pass {
        ConvolutionPass::Forward | ConvolutionPass::ForwardWithSums => (
            Kind::CUDNN_BACKEND_OPERATION_CONVOLUTION_FORWARD_DESCRIPTOR,
            [
                Name::CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_CONV_DESC,
                Name::CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_X,
                Name::CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_W,
                Name::CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_Y,
                Name::CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_ALPHA,
                Name::CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_BETA,
            ],
        ),
        ConvolutionPass::BackwardInput => (
            Kind::CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_DATA_DESCRIPTOR,
            [
                Name::CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_CONV_DESC,
                Name::CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DX,
                Name::CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_W,
                Name::CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DY,
                Name::CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_ALPHA,
                Name::CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_BETA,
            ],
        ),
        ConvolutionPass::BackwardWeight => (
            Kind::CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_FILTER_DESCRIPTOR,
            [
                Name::CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_CONV_DESC,
                Name::CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_X,
                Name::CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DW,
                Name::CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DY,
                Name::CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_ALPHA,
                Name::CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_BETA,
            ],
        ),
    }
}

/// The operation that computes the sums of each channel of y and of its squares.
fn sums(y: &Descriptor, sum: &Descriptor, square: &Descriptor) -> Result<Descriptor> {
    let sums = Descriptor::new(Kind::CUDNN_BACKEND_OPERATION_GEN_STATS_DESCRIPTOR)?;
    sums.descriptors(Name::CUDNN_ATTR_OPERATION_GENSTATS_XDESC, &[y])?;
    sums.descriptors(Name::CUDNN_ATTR_OPERATION_GENSTATS_SUMDESC, &[sum])?;
    sums.descriptors(Name::CUDNN_ATTR_OPERATION_GENSTATS_SQSUMDESC, &[square])?;
    let mode = cudnnGenStatsMode_t::CUDNN_GENSTATS_SUM_SQSUM as u32;
    sums.constant(Name::CUDNN_ATTR_OPERATION_GENSTATS_MODE, Type::CUDNN_TYPE_GENSTATS_MODE, mode)?;
    let float = data_type(ElementType::F32) as u32;
    sums.constant(Name::CUDNN_ATTR_OPERATION_GENSTATS_MATH_PREC, Type::CUDNN_TYPE_DATA_TYPE, float)?;
    sums.finalize()?;
    Ok(sums)
}

/// Operands and workspace in the form that a plan takes. Sums are f32, with those of squares `sums_apart` values after
/// the others; shifts follow the scales.
pub(super) fn pack(key: &Key, operands: Operands, room: u64) -> Result<Descriptor> {
    let pack = Descriptor::new(Kind::CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR)?;
    let Operands { x, w, y, sums, norm } = operands;
    let (mut ids, mut addresses) = (IDS.to_vec(), vec![x, w, y]);
    if key.pass == ConvolutionPass::ForwardWithSums {
        ids.extend(SUMS);
        let squares = sums + (sums_apart(key.geometry.out_channels) * size_of::<f32>()) as u64;
        addresses.extend([sums, squares]);
    }
    if key.normalised {
        ids.extend(NORM);
        addresses.extend([norm, norm + (key.geometry.in_channels * key.element.size()) as u64]);
    }
    pack.integers(Name::CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS, &ids)?;
    pack.addresses(Name::CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS, &addresses)?;
    pack.addresses(Name::CUDNN_ATTR_VARIANT_PACK_WORKSPACE, &[room])?;
    pack.finalize()?;
    Ok(pack)
}

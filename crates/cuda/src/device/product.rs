//! Products of matrices by cuBLASLt, with what follows them fused in.

use std::collections::HashMap;
use std::ffi::c_void;
use std::sync::Arc;

use cudarc::cublaslt::result::{self, CublasError};
use cudarc::cublaslt::sys::{
    cublasComputeType_t as Compute, cublasLtEpilogue_t, cublasLtHandle_t, cublasLtMatmulDesc_t,
    cublasLtMatmulDescAttributes_t as Attribute, cublasLtMatmulHeuristicResult_t, cublasLtMatmulPreference_t,
    cublasLtMatmulPreferenceAttributes_t, cublasLtMatrixLayout_t, cudaDataType,
};
use cudarc::driver::CudaContext;

use super::{Device, lock};
use crate::launcher::{Launcher, expect, expect_len};
use crate::{CudaError, Element, ElementType, Result, Slice, SliceMut};

const NAME: &str = "a product of matrices";
/// What an algorithm may take for itself.
const WORKSPACE: usize = 32 << 20;

/// How products of f32 are computed. Those of 16-bit values always sum in f32.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ProductMode {
    /// As f32.
    Exact,
    /// Of values rounded to tf32: 10 bits of precision.
    Tf32,
}

/// A row-major matrix, or its transpose.
#[derive(Debug, Clone, Copy)]
pub struct Matrix<'a, E> {
    values: Slice<'a, E>,
    rows: usize,
    columns: usize,
    transposed: bool,
}

impl<'a, E> Matrix<'a, E> {
    /// Rows of `columns` values.
    ///
    /// # Errors
    /// `Lengths` where they are no whole rows.
    pub fn new(values: Slice<'a, E>, columns: usize) -> Result<Matrix<'a, E>> {
        let whole = columns > 0 && !values.is_empty() && values.len().is_multiple_of(columns);
        expect(NAME, whole, || format!("{} values are no rows of {columns}", values.len()))?;
        Ok(Matrix { values, rows: values.len() / columns, columns, transposed: false })
    }

    /// The transpose, of the same values.
    pub fn t(self) -> Matrix<'a, E> {
        Matrix { transposed: !self.transposed, ..self }
    }

    /// Rows and columns as the product sees them.
    fn shape(&self) -> (usize, usize) {
        if self.transposed { (self.columns, self.rows) } else { (self.rows, self.columns) }
    }
}

/// What is done to a product before it is written.
#[derive(Debug, Clone, Copy)]
pub enum Epilogue<'a, E> {
    /// Nothing.
    None,
    /// A value is added to each column.
    Bias(Slice<'a, E>),
    /// The same, then what is negative becomes 0.
    BiasRelu(Slice<'a, E>),
}

impl<E> Epilogue<'_, E> {
    fn bias(&self) -> Option<&Slice<'_, E>> {
        match self {
            Epilogue::None => None,
            Epilogue::Bias(bias) | Epilogue::BiasRelu(bias) => Some(bias),
        }
    }

    fn kind(&self) -> cublasLtEpilogue_t {
        match self {
            Epilogue::None => cublasLtEpilogue_t::CUBLASLT_EPILOGUE_DEFAULT,
            Epilogue::Bias(_) => cublasLtEpilogue_t::CUBLASLT_EPILOGUE_BIAS,
            Epilogue::BiasRelu(_) => cublasLtEpilogue_t::CUBLASLT_EPILOGUE_RELU_BIAS,
        }
    }
}

/// What an algorithm depends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Key {
    element: ElementType,
    mode: ProductMode,
    sizes: [usize; 3],
    transposed: [bool; 2],
    epilogue: u32,
}

/// The library's handle, and the algorithms that it proposed.
pub(super) struct Products {
    context: Arc<CudaContext>,
    handle: cublasLtHandle_t,
    algorithms: HashMap<Key, cublasLtMatmulHeuristicResult_t>,
}

// SAFETY: the handle may be used by any thread; it is behind a lock.
unsafe impl Send for Products {}

impl Drop for Products {
    fn drop(&mut self) {
        if self.context.bind_to_thread().is_ok() {
            // SAFETY: the handle was created and is destroyed once. There is nobody to tell a failure.
            let _ = unsafe { result::destroy_handle(self.handle) };
        }
    }
}

fn failed(error: CublasError) -> CudaError {
    CudaError::Call { what: NAME, reason: format!("cuBLASLt: {error}") }
}

/// Destroys a description when dropped.
struct Owned<H: Copy>(H, unsafe fn(H) -> std::result::Result<(), CublasError>);

impl<H: Copy> Drop for Owned<H> {
    fn drop(&mut self) {
        // SAFETY: the description was created and is destroyed once. There is nobody to tell a failure.
        let _ = unsafe { (self.1)(self.0) };
    }
}

fn data_type(element: ElementType) -> cudaDataType {
    match element {
        ElementType::F32 => cudaDataType::CUDA_R_32F,
        ElementType::Bf16 => cudaDataType::CUDA_R_16BF,
        ElementType::F16 => cudaDataType::CUDA_R_16F,
    }
}

/// A matrix as cuBLASLt sees it: row-major is the transpose of column-major.
fn layout(element: ElementType, rows: usize, columns: usize) -> Result<Owned<cublasLtMatrixLayout_t>> {
    let layout =
        result::create_matrix_layout(data_type(element), columns as u64, rows as u64, columns as i64);
    Ok(Owned(layout.map_err(failed)?, result::destroy_matrix_layout))
}

/// Sets an attribute to a value.
///
/// # Safety
/// The attribute must be of that type.
unsafe fn set<V>(description: cublasLtMatmulDesc_t, attribute: Attribute, value: V) -> Result<()> {
    let from = std::ptr::from_ref(&value).cast::<c_void>();
    // SAFETY: the value is so long; the rest is the caller's promise.
    unsafe { result::set_matmul_desc_attribute(description, attribute, from, size_of::<V>()) }.map_err(failed)
}

impl Device {
    /// out = epilogue(a b), all row-major: `out` has a's rows and b's columns.
    ///
    /// # Errors
    /// `Lengths` where shapes do not belong together, `Call` where the library refuses.
    pub fn product<E: Element>(
        &self,
        a: Matrix<E>,
        b: Matrix<E>,
        epilogue: Epilogue<E>,
        mode: ProductMode,
        out: SliceMut<E>,
    ) -> Result<()> {
        let ((rows, inner), (other, columns)) = (a.shape(), b.shape());
        expect(NAME, inner == other, || format!("{rows} x {inner} times {other} x {columns}"))?;
        expect_len(NAME, "the product", out.len(), rows * columns)?;
        let bias = epilogue.bias();
        expect_len(NAME, "the bias", bias.map_or(columns, |bias| bias.len()), columns)?;
        self.bind()?;
        let workspace = self.scratch(WORKSPACE)?;
        let compute = match (E::TYPE, mode) {
            (ElementType::F32, ProductMode::Tf32) => Compute::CUBLAS_COMPUTE_32F_FAST_TF32,
            _ => Compute::CUBLAS_COMPUTE_32F,
        };
        let description = result::create_matmul_desc(compute, cudaDataType::CUDA_R_32F).map_err(failed)?;
        let description = Owned(description, result::destroy_matmul_desc);
        // `cublasOperation_t`: 0 takes a matrix as it is, 1 its transpose.
        let operation = |transposed: bool| i32::from(transposed);
        // out^T = b^T a^T: what is row-major here is the transpose there, so that the operands change places.
        // SAFETY: these attributes are of these types.
        unsafe {
            set(description.0, Attribute::CUBLASLT_MATMUL_DESC_TRANSA, operation(b.transposed))?;
            set(description.0, Attribute::CUBLASLT_MATMUL_DESC_TRANSB, operation(a.transposed))?;
            set(description.0, Attribute::CUBLASLT_MATMUL_DESC_EPILOGUE, epilogue.kind())?;
            if let Some(bias) = bias {
                set(description.0, Attribute::CUBLASLT_MATMUL_DESC_BIAS_POINTER, bias.address())?;
            }
        }
        let of_a = layout(E::TYPE, a.rows, a.columns)?;
        let of_b = layout(E::TYPE, b.rows, b.columns)?;
        let of_out = layout(E::TYPE, rows, columns)?;
        let mut products = lock(&self.shared.products);
        let products = match &mut *products {
            Some(products) => products,
            empty => empty.insert(Products {
                context: self.shared.context.clone(),
                handle: result::create_handle().map_err(failed)?,
                algorithms: HashMap::new(),
            }),
        };
        let handle = products.handle;
        let key = Key {
            element: E::TYPE,
            mode,
            sizes: [rows, columns, inner],
            transposed: [a.transposed, b.transposed],
            epilogue: epilogue.kind() as u32,
        };
        let algorithm = match products.algorithms.get(&key) {
            Some(known) => *known,
            None => {
                let found = proposed(handle, description.0, [of_b.0, of_a.0, of_out.0])?;
                products.algorithms.insert(key, found);
                found
            }
        };
        let (one, zero) = (1f32, 0f32);
        // SAFETY: the layouts are those of the operands, whose lengths were checked; the workspace is as long as was said; the factors are read
        // before the call returns.
        unsafe {
            result::matmul(
                handle,
                description.0,
                std::ptr::from_ref(&one).cast(),
                std::ptr::from_ref(&zero).cast(),
                b.values.address() as *const c_void,
                of_b.0,
                a.values.address() as *const c_void,
                of_a.0,
                out.address() as *const c_void,
                of_out.0,
                out.address() as *mut c_void,
                of_out.0,
                &algorithm.algo,
                workspace.address() as *mut c_void,
                WORKSPACE,
                self.raw_stream().cast(),
            )
        }
        .map_err(failed)
    }
}

fn proposed(
    handle: cublasLtHandle_t,
    description: cublasLtMatmulDesc_t,
    [first, second, out]: [cublasLtMatrixLayout_t; 3],
) -> Result<cublasLtMatmulHeuristicResult_t> {
    let preference: Owned<cublasLtMatmulPreference_t> =
        Owned(result::create_matmul_pref().map_err(failed)?, result::destroy_matmul_pref);
    let attribute = cublasLtMatmulPreferenceAttributes_t::CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES;
    let room = std::ptr::from_ref(&WORKSPACE).cast::<c_void>();
    // SAFETY: this attribute is a size; all descriptions live.
    unsafe {
        result::set_matmul_pref_attribute(preference.0, attribute, room, size_of::<usize>())
            .map_err(failed)?;
        result::get_matmul_algo_heuristic(handle, description, first, second, out, out, preference.0)
            .map_err(failed)
    }
}

//! Matrix products by cuBLASLt, summed in f32, with fused epilogues.
//!
//! The library proposes algorithms. The fastest is found by timing them once, and remembered on disk for the version of
//! cuBLASLt and the GPU's name. Only algorithms that give the same bits every time are considered.

mod plan;
mod search;

use std::collections::HashMap;
use std::sync::Arc;

use cudarc::cublaslt::result::{self, CublasError};
use cudarc::cublaslt::sys::{self, cublasLtEpilogue_t, cublasLtHandle_t};
use cudarc::driver::CudaContext;
use simclr_kernels::Write;

use super::{Device, PRODUCTS, destroy_between_captures, lock};
use crate::cache::Remembered;
use crate::launcher::{expect, expect_len};
use crate::{CudaError, Element, ElementType, Result, Slice, SliceMut};
use plan::Plan;

/// The operation's name in errors.
const NAME: &str = "a product of matrices";

/// How products of f32 are computed. Those of 16-bit values always sum in f32.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ProductMode {
    /// As f32.
    Exact,
    /// From values rounded to tf32: 10 bits of precision.
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
    /// `Lengths` where the values do not make whole rows.
    pub fn new(values: Slice<'a, E>, columns: usize) -> Result<Matrix<'a, E>> {
        let whole = columns > 0 && !values.is_empty() && values.len().is_multiple_of(columns);
        expect(NAME, whole, || format!("{} values are not whole rows of {columns}", values.len()))?;
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

/// What is applied to a product before it is written.
#[derive(Debug, Clone, Copy)]
pub enum Epilogue<'a, D> {
    /// Nothing.
    None,
    /// Adds a value to each column.
    Bias(Slice<'a, D>),
    /// Adds a value to each column, then applies ReLU.
    BiasRelu(Slice<'a, D>),
}

impl<D> Epilogue<'_, D> {
    fn bias(&self) -> Option<&Slice<'_, D>> {
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

/// Everything that the choice of an algorithm depends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Key {
    /// The type of the operands.
    element: ElementType,
    /// The type of the product and of the bias.
    output: ElementType,
    mode: ProductMode,
    /// Rows and columns of the product, and the length of the sums.
    sizes: [usize; 3],
    /// Whether a and b are transposes of the matrices in memory.
    transposed: [bool; 2],
    epilogue: cublasLtEpilogue_t,
    /// Whether the product is added to the output's values.
    adds: bool,
    /// The alignments of a, b and the product, in bytes.
    alignments: [u32; 3],
}

/// Addresses of the tensors that a product reads and writes.
#[derive(Debug, Clone, Copy)]
struct Operands {
    a: u64,
    b: u64,
    bias: Option<u64>,
    out: u64,
}

/// The greatest power of 2 that divides an address, up to 256, above which the library makes no difference.
fn alignment(address: u64) -> u32 {
    1 << address.trailing_zeros().min(8)
}

/// The library's name with its version.
pub(super) fn version() -> String {
    // SAFETY: every device has loaded the library.
    format!("cuBLASLt {}", unsafe { sys::cublasLtGetVersion() })
}

fn failed(error: CublasError) -> CudaError {
    CudaError::Call { what: NAME, reason: format!("cuBLASLt: {error}") }
}

/// The library's handle, and the plans made with it.
pub(super) struct Products {
    context: Arc<CudaContext>,
    handle: cublasLtHandle_t,
    /// Algorithms chosen before, also by other processes.
    remembered: Remembered,
    plans: HashMap<Key, Plan>,
}

// SAFETY: the handle and the descriptors may be used by any thread, one at a time; they are behind a lock.
unsafe impl Send for Products {}

impl Products {
    fn new(device: &Device) -> Result<Products> {
        let machine = format!("{} on {}", version(), device.name());
        Ok(Products {
            context: device.shared.context.clone(),
            handle: result::create_handle().map_err(failed)?,
            remembered: Remembered::new(device.shared.cache.as_deref(), PRODUCTS, machine),
            plans: HashMap::new(),
        })
    }
}

impl Drop for Products {
    fn drop(&mut self) {
        if self.context.bind_to_thread().is_ok() {
            // SAFETY: the handle was created and is destroyed once. A failure cannot be reported from a drop.
            destroy_between_captures(|| unsafe { result::destroy_handle(self.handle) });
        }
    }
}

impl Device {
    /// out = epilogue(a b), or epilogue(a b + out) with [`Write::Add`]; all row-major. `out` has a's rows and b's
    /// columns, and is of the operands' type or f32.
    ///
    /// The first product of its kind times the algorithms that the library proposes, so it must not happen during a
    /// capture.
    ///
    /// # Errors
    /// `Lengths` where shapes or types do not match, `Call` where the library fails.
    pub fn product<E: Element, D: Element>(
        &self,
        a: Matrix<E>,
        b: Matrix<E>,
        epilogue: Epilogue<D>,
        mode: ProductMode,
        out: SliceMut<D>,
        write: Write,
    ) -> Result<()> {
        let ((rows, inner), (other, columns)) = (a.shape(), b.shape());
        expect(NAME, inner == other, || format!("{rows} x {inner} times {other} x {columns}"))?;
        expect_len(NAME, "the product", out.len(), rows * columns)?;
        let bias = epilogue.bias();
        expect_len(NAME, "the bias", bias.map_or(columns, |bias| bias.len()), columns)?;
        let kept = D::TYPE == E::TYPE || D::TYPE == ElementType::F32;
        expect(NAME, kept, || {
            format!("a product of {} is of that type or of float, not {}", E::TYPE.name(), D::TYPE.name())
        })?;
        let operands = Operands {
            a: a.values.address(),
            b: b.values.address(),
            bias: bias.map(|bias| bias.address()),
            out: out.address(),
        };
        let key = Key {
            element: E::TYPE,
            output: D::TYPE,
            mode: if E::TYPE == ElementType::F32 { mode } else { ProductMode::Exact },
            sizes: [rows, columns, inner],
            transposed: [a.transposed, b.transposed],
            epilogue: epilogue.kind(),
            adds: write == Write::Add,
            alignments: [operands.a, operands.b, operands.out].map(alignment),
        };
        self.bind()?;
        let mut products = lock(&self.shared.products);
        let products = match &mut *products {
            Some(products) => products,
            empty => empty.insert(Products::new(self)?),
        };
        let plan = products.plan(self, &key, operands)?;
        // SAFETY: the plan is for operands of this key, whose lengths were checked, and which are borrowed until the
        // product is started.
        unsafe { plan.run(self, operands) }
    }
}

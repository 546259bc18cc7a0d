//! cuBLASLt's descriptors of a product, kept for as long as the device lives.

use std::ffi::c_void;

use cudarc::cublaslt::result::{self, CublasError};
use cudarc::cublaslt::sys::{
    self, cublasComputeType_t as Compute, cublasLtHandle_t, cublasLtMatmulAlgo_t, cublasLtMatmulDesc_t,
    cublasLtMatmulDescAttributes_t as Attribute, cublasLtMatmulHeuristicResult_t, cublasLtMatmulPreference_t,
    cublasLtMatmulPreferenceAttributes_t as Preference, cublasLtMatrixLayout_t, cublasLtReductionScheme_t,
    cudaDataType,
};

use super::{Device, Key, Operands, ProductMode, failed};
use crate::{ElementType, Memory, Result};

/// The most workspace that an algorithm may use, in bytes.
const WORKSPACE: usize = 64 << 20;
/// The most algorithms to ask the library for.
const MAX_ALGORITHMS: usize = 16;

/// A descriptor, destroyed when dropped.
struct Owned<H: Copy>(H, unsafe fn(H) -> std::result::Result<(), CublasError>);

impl<H: Copy> Drop for Owned<H> {
    fn drop(&mut self) {
        // SAFETY: the descriptor was created and is destroyed once. A failure cannot be reported from a drop.
        let _ = unsafe { (self.1)(self.0) };
    }
}

/// An algorithm with the size of its workspace in bytes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Choice {
    pub algorithm: cublasLtMatmulAlgo_t,
    pub workspace: usize,
}

impl Choice {
    /// A choice from one of the library's results, if the algorithm works and its workspace is not too large.
    fn of(found: &cublasLtMatmulHeuristicResult_t) -> Option<Choice> {
        let fits = found.state.result().is_ok() && found.workspaceSize <= WORKSPACE;
        fits.then_some(Choice { algorithm: found.algo, workspace: found.workspaceSize })
    }
}

/// A product without the algorithm that computes it.
pub(super) struct Problem {
    handle: cublasLtHandle_t,
    description: Owned<cublasLtMatmulDesc_t>,
    a: Owned<cublasLtMatrixLayout_t>,
    b: Owned<cublasLtMatrixLayout_t>,
    out: Owned<cublasLtMatrixLayout_t>,
    alignments: [u32; 3],
    adds: bool,
}

/// A product and the algorithm that computes it.
pub(super) struct Plan {
    pub problem: Problem,
    pub choice: Choice,
}

fn data_type(element: ElementType) -> cudaDataType {
    match element {
        ElementType::F32 => cudaDataType::CUDA_R_32F,
        ElementType::Bf16 => cudaDataType::CUDA_R_16BF,
        ElementType::F16 => cudaDataType::CUDA_R_16F,
    }
}

/// The layout of a row-major matrix for cuBLASLt, to which it is the transpose of a column-major one.
fn layout(element: ElementType, rows: usize, columns: usize) -> Result<Owned<cublasLtMatrixLayout_t>> {
    let layout =
        result::create_matrix_layout(data_type(element), columns as u64, rows as u64, columns as i64);
    Ok(Owned(layout.map_err(failed)?, result::destroy_matrix_layout))
}

/// Sets an attribute of a product to a value.
///
/// # Safety
/// The descriptor must be alive, and the attribute must be of type `V`.
unsafe fn set<V>(description: cublasLtMatmulDesc_t, attribute: Attribute, value: V) -> Result<()> {
    let from = std::ptr::from_ref(&value).cast::<c_void>();
    // SAFETY: the value has that size; the rest is the caller's promise.
    unsafe { result::set_matmul_desc_attribute(description, attribute, from, size_of::<V>()) }.map_err(failed)
}

/// Sets a requirement for the algorithms that the library proposes.
///
/// # Safety
/// As [`set`].
unsafe fn prefer<V>(to: cublasLtMatmulPreference_t, attribute: Preference, value: V) -> Result<()> {
    let from = std::ptr::from_ref(&value).cast::<c_void>();
    // SAFETY: the value has that size; the rest is the caller's promise.
    unsafe { result::set_matmul_pref_attribute(to, attribute, from, size_of::<V>()) }.map_err(failed)
}

impl Problem {
    /// The product of a key, with the bias of `operands` for now.
    pub fn new(handle: cublasLtHandle_t, key: &Key, operands: Operands) -> Result<Problem> {
        let compute = match (key.element, key.mode) {
            (ElementType::F32, ProductMode::Tf32) => Compute::CUBLAS_COMPUTE_32F_FAST_TF32,
            _ => Compute::CUBLAS_COMPUTE_32F,
        };
        let description = result::create_matmul_desc(compute, cudaDataType::CUDA_R_32F).map_err(failed)?;
        let description = Owned(description, result::destroy_matmul_desc);
        let [rows, columns, inner] = key.sizes;
        let [a_turned, b_turned] = key.transposed;
        let stored = |rows, columns, turned| if turned { (columns, rows) } else { (rows, columns) };
        let (of_a, of_b) = (stored(rows, inner, a_turned), stored(inner, columns, b_turned));
        // out^T = b^T a^T: the library sees our row-major matrices as their transposes, so the operands are swapped.
        // SAFETY: the descriptor is alive, and these attributes are of these types; a `cublasOperation_t` is 0 for a
        // matrix as it is, 1 for its transpose.
        unsafe {
            set(description.0, Attribute::CUBLASLT_MATMUL_DESC_TRANSA, i32::from(b_turned))?;
            set(description.0, Attribute::CUBLASLT_MATMUL_DESC_TRANSB, i32::from(a_turned))?;
            set(description.0, Attribute::CUBLASLT_MATMUL_DESC_EPILOGUE, key.epilogue)?;
        }
        let problem = Problem {
            handle,
            description,
            a: layout(key.element, of_a.0, of_a.1)?,
            b: layout(key.element, of_b.0, of_b.1)?,
            out: layout(key.output, rows, columns)?,
            alignments: key.alignments,
            adds: key.adds,
        };
        problem.take_bias(operands)?;
        Ok(problem)
    }

    fn take_bias(&self, operands: Operands) -> Result<()> {
        let Some(bias) = operands.bias else { return Ok(()) };
        // SAFETY: the descriptor is alive; the attribute is an address.
        unsafe { set(self.description.0, Attribute::CUBLASLT_MATMUL_DESC_BIAS_POINTER, bias) }
    }

    /// The algorithms that the library proposes, in its order of preference, among those that give the same bits every
    /// time: those that sum in one sequence, or keep partial sums in f32 and add them in a separate step. The others
    /// add partial sums to the result in any order, or round them to its type.
    pub fn proposals(&self) -> Result<Vec<Choice>> {
        let preference = result::create_matmul_pref().map_err(failed)?;
        let preference = Owned(preference, result::destroy_matmul_pref);
        let schemes = cublasLtReductionScheme_t::CUBLASLT_REDUCTION_SCHEME_NONE as u32
            | cublasLtReductionScheme_t::CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE as u32;
        let [a, b, out] = self.alignments;
        // SAFETY: a result consists of numbers and a status, for which zero is valid: it is `CUBLAS_STATUS_SUCCESS`.
        let mut found: [cublasLtMatmulHeuristicResult_t; MAX_ALGORITHMS] = unsafe { std::mem::zeroed() };
        let mut count = 0;
        // SAFETY: all descriptors are alive, these attributes are of these types, and there is room for `MAX_ALGORITHMS`
        // results.
        unsafe {
            prefer(preference.0, Preference::CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, WORKSPACE as u64)?;
            prefer(preference.0, Preference::CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, schemes)?;
            prefer(preference.0, Preference::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, b)?;
            prefer(preference.0, Preference::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, a)?;
            prefer(preference.0, Preference::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, out)?;
            prefer(preference.0, Preference::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, out)?;
            sys::cublasLtMatmulAlgoGetHeuristic(
                self.handle,
                self.description.0,
                self.b.0,
                self.a.0,
                self.out.0,
                self.out.0,
                preference.0,
                MAX_ALGORITHMS as i32,
                found.as_mut_ptr(),
                &mut count,
            )
        }
        .result()
        .map_err(failed)?;
        let count = usize::try_from(count).unwrap_or(0).min(MAX_ALGORITHMS);
        Ok(found[..count].iter().filter_map(Choice::of).collect())
    }

    /// An algorithm that was chosen earlier, if the library still accepts it for this product.
    pub fn checked(&self, algorithm: &cublasLtMatmulAlgo_t) -> Option<Choice> {
        // SAFETY: as in `proposals`.
        let mut found: cublasLtMatmulHeuristicResult_t = unsafe { std::mem::zeroed() };
        // SAFETY: all descriptors are alive; the function checks whether the algorithm is valid at all.
        let status = unsafe {
            sys::cublasLtMatmulAlgoCheck(
                self.handle,
                self.description.0,
                self.b.0,
                self.a.0,
                self.out.0,
                self.out.0,
                algorithm,
                &mut found,
            )
        };
        status.result().ok()?;
        // The library fills in the workspace, not the algorithm.
        found.algo = *algorithm;
        Choice::of(&found)
    }

    /// Starts the product.
    ///
    /// # Safety
    /// The operands must match the key from which this was made, and the choice must be for this problem.
    pub unsafe fn run(&self, device: &Device, choice: &Choice, operands: Operands) -> Result<()> {
        self.take_bias(operands)?;
        let Operands { a, b, out, .. } = operands;
        let room = (choice.workspace > 0).then(|| device.pool().take(choice.workspace)).transpose()?;
        let (one, old) = (1f32, if self.adds { 1f32 } else { 0f32 });
        // SAFETY: the caller's promise; the workspace has the size that is passed; the factors are read before the call
        // returns.
        unsafe {
            result::matmul(
                self.handle,
                self.description.0,
                std::ptr::from_ref(&one).cast(),
                std::ptr::from_ref(&old).cast(),
                b as *const c_void,
                self.b.0,
                a as *const c_void,
                self.a.0,
                out as *const c_void,
                self.out.0,
                out as *mut c_void,
                self.out.0,
                &choice.algorithm,
                room.as_ref().map_or(0, Memory::address) as *mut c_void,
                choice.workspace,
                device.raw_stream().cast(),
            )
        }
        .map_err(failed)
    }
}

impl Plan {
    /// Starts the product.
    ///
    /// # Safety
    /// The operands must match the key from which this was made.
    pub unsafe fn run(&self, device: &Device, operands: Operands) -> Result<()> {
        // SAFETY: the caller's promise; the choice was made for this problem.
        unsafe { self.problem.run(device, &self.choice, operands) }
    }
}

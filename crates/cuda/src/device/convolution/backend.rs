//! Descriptors of cuDNN's backend, which make up its graphs: created empty, given attributes, then finalised.

use std::ffi::{CStr, c_char, c_void};

use cudarc::cudnn::sys::{
    self, cudnnBackendAttributeName_t as Name, cudnnBackendAttributeType_t as Type,
    cudnnBackendDescriptorType_t as Kind, cudnnStatus_t,
};

use super::NAME;
use crate::{CudaError, Result};

/// A descriptor, destroyed when dropped. Descriptors that it refers to must live as long.
pub(super) struct Descriptor(sys::cudnnBackendDescriptor_t);

/// Turns a status into a result, with cuDNN's own error message if there is one.
fn check(status: cudnnStatus_t, doing: impl FnOnce() -> String) -> Result<()> {
    if status == cudnnStatus_t::CUDNN_STATUS_SUCCESS {
        return Ok(());
    }
    let mut message = [0u8; 512];
    // SAFETY: the message has room for that many bytes, and ends in a zero: the last byte is never written.
    unsafe { sys::cudnnGetLastErrorString(message.as_mut_ptr().cast::<c_char>(), message.len() - 1) };
    let words = CStr::from_bytes_until_nul(&message).map(CStr::to_string_lossy).unwrap_or_default();
    Err(CudaError::Call {
        what: NAME,
        reason: format!("cuDNN: {}: {status:?} {}", doing(), words.trim()).trim_end().to_owned(),
    })
}

impl Descriptor {
    /// An empty descriptor.
    pub fn new(kind: Kind) -> Result<Descriptor> {
        let mut descriptor = std::ptr::null_mut();
        // SAFETY: one handle is written.
        let status = unsafe { sys::cudnnBackendCreateDescriptor(kind, &mut descriptor) };
        check(status, || format!("creating {kind:?}"))?;
        Ok(Descriptor(descriptor))
    }

    /// Sets an attribute to values, which cuDNN copies.
    ///
    /// # Safety
    /// `T` must be the type that `of` stands for.
    unsafe fn set<T>(&self, name: Name, of: Type, values: &[T]) -> Result<()> {
        // SAFETY: the descriptor is alive; `values` has that many values of the right type.
        let status = unsafe {
            sys::cudnnBackendSetAttribute(self.0, name, of, values.len() as i64, values.as_ptr().cast())
        };
        check(status, || format!("setting {name:?}"))
    }

    pub fn integers(&self, name: Name, values: &[i64]) -> Result<()> {
        // SAFETY: the type is that of the values.
        unsafe { self.set(name, Type::CUDNN_TYPE_INT64, values) }
    }

    pub fn float(&self, name: Name, value: f32) -> Result<()> {
        // SAFETY: the type is that of the value.
        unsafe { self.set(name, Type::CUDNN_TYPE_FLOAT, &[value]) }
    }

    /// Sets an attribute to a value of one of cuDNN's (C) enumerations.
    pub fn constant(&self, name: Name, of: Type, value: u32) -> Result<()> {
        debug_assert!(matches!(
            of,
            Type::CUDNN_TYPE_DATA_TYPE
                | Type::CUDNN_TYPE_CONVOLUTION_MODE
                | Type::CUDNN_TYPE_HEUR_MODE
                | Type::CUDNN_TYPE_KNOB_TYPE
                | Type::CUDNN_TYPE_GENSTATS_MODE
                | Type::CUDNN_TYPE_POINTWISE_MODE
        ));
        // SAFETY: an enumeration has 4 bytes.
        unsafe { self.set(name, of, &[value]) }
    }

    pub fn boolean(&self, name: Name, value: bool) -> Result<()> {
        // SAFETY: the type is that of the value, C's `bool`.
        unsafe { self.set(name, Type::CUDNN_TYPE_BOOLEAN, &[value]) }
    }

    pub fn handle(&self, name: Name, handle: sys::cudnnHandle_t) -> Result<()> {
        // SAFETY: the type is that of the value.
        unsafe { self.set(name, Type::CUDNN_TYPE_HANDLE, &[handle]) }
    }

    /// Sets an attribute to addresses of the GPU's memory.
    pub fn addresses(&self, name: Name, addresses: &[u64]) -> Result<()> {
        const { assert!(size_of::<u64>() == size_of::<*mut c_void>()) };
        // SAFETY: an address is as long as a pointer.
        unsafe { self.set(name, Type::CUDNN_TYPE_VOID_PTR, addresses) }
    }

    /// Sets an attribute to finalised descriptors.
    pub fn descriptors(&self, name: Name, descriptors: &[&Descriptor]) -> Result<()> {
        let raw: Vec<_> = descriptors.iter().map(|descriptor| descriptor.0).collect();
        // SAFETY: the type is that of the values.
        unsafe { self.set(name, Type::CUDNN_TYPE_BACKEND_DESCRIPTOR, &raw) }
    }

    /// Completes the descriptor: it can be used from now on, but no longer changed.
    pub fn finalize(&self) -> Result<()> {
        // SAFETY: the descriptor is alive.
        let status = unsafe { sys::cudnnBackendFinalize(self.0) };
        check(status, || "finalising a descriptor".to_owned())
    }

    /// Reads up to `values.len()` values of an attribute; returns how many there are, which may be more.
    ///
    /// # Safety
    /// `T` must be the type that `of` stands for, any bits that cuDNN writes must be a valid `T`, and handles in
    /// `values` must be alive.
    unsafe fn get<T>(&self, name: Name, of: Type, values: &mut [T]) -> Result<usize> {
        let (most, mut count) = (values.len() as i64, 0);
        let to = if values.is_empty() { std::ptr::null_mut() } else { values.as_mut_ptr().cast() };
        // SAFETY: the descriptor is alive, and there is room for `most` values of the right type.
        let status = unsafe { sys::cudnnBackendGetAttribute(self.0, name, of, most, &mut count, to) };
        check(status, || format!("reading {name:?}"))?;
        Ok(usize::try_from(count).unwrap_or(0))
    }

    pub fn integer(&self, name: Name) -> Result<i64> {
        let mut value = [0i64];
        // SAFETY: the type is that of the value.
        unsafe { self.get(name, Type::CUDNN_TYPE_INT64, &mut value) }?;
        Ok(value[0])
    }

    /// Up to `most` values of one of cuDNN's enumerations, as numbers, since a newer cuDNN may have added some.
    pub fn constants(&self, name: Name, of: Type, most: usize) -> Result<Vec<u32>> {
        let mut values = vec![0u32; most];
        // SAFETY: an enumeration has 4 bytes, and any 4 bytes are a valid number.
        let count = unsafe { self.get(name, of, &mut values) }?;
        values.truncate(count);
        Ok(values)
    }

    /// The descriptors that an attribute holds, up to `most`.
    pub fn parts(&self, name: Name, kind: Kind, most: usize) -> Result<Vec<Descriptor>> {
        let of = Type::CUDNN_TYPE_BACKEND_DESCRIPTOR;
        // SAFETY: only the count is requested, no values.
        let count = unsafe { self.get::<sys::cudnnBackendDescriptor_t>(name, of, &mut []) };
        // If the count cannot be queried alone, make room for the most there can be.
        let count = count.unwrap_or(most).min(most);
        if count == 0 {
            return Ok(Vec::new());
        }
        // cuDNN fills in descriptors that the caller creates.
        let mut parts = (0..count).map(|_| Descriptor::new(kind)).collect::<Result<Vec<_>>>()?;
        let mut raw: Vec<_> = parts.iter().map(|part| part.0).collect();
        // SAFETY: `raw` holds that many descriptors of the attribute's kind, all alive.
        let filled = unsafe { self.get(name, of, &mut raw) }?;
        parts.truncate(filled);
        Ok(parts)
    }

    /// The one descriptor that an attribute holds.
    pub fn part(&self, name: Name, kind: Kind) -> Result<Descriptor> {
        let part = Descriptor::new(kind)?;
        // SAFETY: `part` is a descriptor of the attribute's kind, and alive.
        unsafe { self.get(name, Type::CUDNN_TYPE_BACKEND_DESCRIPTOR, &mut [part.0]) }?;
        Ok(part)
    }

    /// Starts an execution plan, which this descriptor must be, on the operands of a variant pack.
    ///
    /// # Safety
    /// The handle must be alive, and the addresses in the pack must be of memory that has the sizes of the plan's
    /// tensors and is borrowed as the plan uses it.
    pub unsafe fn execute(&self, handle: sys::cudnnHandle_t, pack: &Descriptor) -> Result<()> {
        // SAFETY: the caller's promise.
        let status = unsafe { sys::cudnnBackendExecute(handle, self.0, pack.0) };
        check(status, || "starting a plan".to_owned())
    }
}

impl Drop for Descriptor {
    fn drop(&mut self) {
        // SAFETY: it was created, and is destroyed once. A failure cannot be reported from a drop.
        let _ = unsafe { sys::cudnnBackendDestroyDescriptor(self.0) };
    }
}

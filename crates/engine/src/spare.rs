//! Lists whose memory one step leaves to the next, so that training allocates none once it is under way.

use std::sync::{Arc, Mutex, PoisonError};

use simclr_kernels::recycle::emptied;

use crate::tape::{BatchCoefficients, Node};
use crate::{ParameterId, Tensor};

/// Empty lists of one kind of value.
#[derive(Debug)]
pub(crate) struct Shelf<T>(Mutex<Vec<Vec<T>>>);

impl<T> Default for Shelf<T> {
    fn default() -> Self {
        Shelf(Mutex::default())
    }
}

impl<T> Shelf<T> {
    /// Takes an empty list, with memory if any was put back.
    pub(crate) fn take(&self) -> Vec<T> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).pop().unwrap_or_default()
    }

    /// Puts back the memory of `list`, for reuse.
    pub(crate) fn put<U>(&self, list: Vec<U>) {
        if list.capacity() > 0 {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).push(emptied(list));
        }
    }
}

/// The lists of tapes and gradients over one set of parameters.
#[derive(Debug, Default)]
pub(crate) struct Spare {
    pub(crate) nodes: Shelf<Node<'static>>,
    pub(crate) uses: Shelf<usize>,
    pub(crate) gradients: Shelf<Option<Tensor>>,
    pub(crate) averages: Shelf<(ParameterId, Tensor)>,
    pub(crate) coefficients: Shelf<BatchCoefficients>,
}

/// The new values of running averages, in the order in which the operators ran.
#[derive(Debug)]
pub struct BufferUpdates {
    pub(crate) list: Vec<(ParameterId, Tensor)>,
    pub(crate) spare: Arc<Spare>,
}

impl BufferUpdates {
    /// Each average and its new value.
    pub fn iter(&self) -> impl Iterator<Item = (ParameterId, &Tensor)> {
        self.list.iter().map(|(id, value)| (*id, value))
    }

    /// Removes and returns all of them.
    pub fn drain(&mut self) -> impl Iterator<Item = (ParameterId, Tensor)> {
        self.list.drain(..)
    }
}

impl Drop for BufferUpdates {
    fn drop(&mut self) {
        self.spare.averages.put(std::mem::take(&mut self.list));
    }
}

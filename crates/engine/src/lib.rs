//! The training engine: tensors, the tape, one file per operator, kernels per device

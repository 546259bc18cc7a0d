//! The pretraining loop: optimisers, schedules, checkpoints, the run folder

#![forbid(unsafe_code)]

//! What NVIDIA's libraries read from the environment.

/// Asks NCCL not to map what a captured step exchanges into other GPUs: it takes buffers to be whole allocations, ours are pieces of a range that
/// grows as it is mapped, and such replays hang. Does nothing where `NCCL_GRAPH_REGISTER` is set already, nor once the process has another thread,
/// which could be reading the environment: call it first of all.
pub fn settle_environment() {
    const REGISTER: &str = "NCCL_GRAPH_REGISTER";
    if cfg!(feature = "cuda") && std::env::var_os(REGISTER).is_none() && is_only_thread() {
        // SAFETY: no other thread exists that could read or write the environment meanwhile, as was just seen; only another one could begin one.
        unsafe { std::env::set_var(REGISTER, "0") };
    }
}

fn is_only_thread() -> bool {
    std::fs::read_dir("/proc/self/task").is_ok_and(|threads| threads.count() == 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_threads_are_seen() {
        // Tests run on a thread beside the first.
        assert!(!is_only_thread());
        settle_environment();
        assert_eq!(std::env::var_os("NCCL_GRAPH_REGISTER"), None);
    }
}

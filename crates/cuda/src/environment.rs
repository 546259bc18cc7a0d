//! What NVIDIA's libraries read from the environment.

/// What NCCL is to do unless the environment says otherwise.
///
/// It may not map what a captured step exchanges into other GPUs: it takes buffers to be whole allocations, ours
/// are pieces of a range that grows as it is mapped, and such replays hang. It connects when a group is joined,
/// where others are waited for with care, and not in the first exchange. And sums are not left to NVSwitch, which
/// adds in another order each time.
pub const NCCL_SETTINGS: [(&str, &str); 3] =
    [("NCCL_GRAPH_REGISTER", "0"), ("NCCL_RUNTIME_CONNECT", "0"), ("NCCL_NVLS_ENABLE", "0")];

/// Sets in the environment what training on several GPUs needs of NCCL, where it is not set already. Does nothing
/// once the process has another thread, which could be reading the environment: call it first of all.
pub fn settle_environment() {
    if cfg!(feature = "cuda") && is_only_thread() {
        for (name, value) in NCCL_SETTINGS.iter().filter(|(name, _)| std::env::var_os(name).is_none()) {
            // SAFETY: no other thread exists that could read or write the environment meanwhile, as was just seen;
            // only another one could begin one.
            unsafe { std::env::set_var(name, value) };
        }
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
        let now = || NCCL_SETTINGS.map(|(name, _)| std::env::var_os(name));
        let before = now();
        settle_environment();
        assert_eq!(now(), before);
    }
}

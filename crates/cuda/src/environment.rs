//! Environment variables that NVIDIA's libraries read.

/// Settings of NCCL that apply unless the environment overrides them.
///
/// `NCCL_GRAPH_REGISTER=0`: NCCL must not map the buffers of a captured step into other GPUs. It takes them for
/// whole allocations, but ours are pieces of a range that grows as it is mapped, and such replays hang.
/// `NCCL_RUNTIME_CONNECT=0`: GPUs connect when a group is joined, where callers watch for workers that are gone, not
/// in the first exchange. `NCCL_NVLS_ENABLE=0`: NVSwitch must not compute sums, since its order of addition varies.
///
/// `NCCL_ALGO` stays as it is: rings and trees each add in a fixed order, and NCCL chooses between them by the number
/// of values and by how the GPUs are connected, the same way each time.
pub const NCCL_SETTINGS: [(&str, &str); 3] =
    [("NCCL_GRAPH_REGISTER", "0"), ("NCCL_RUNTIME_CONNECT", "0"), ("NCCL_NVLS_ENABLE", "0")];

/// Sets [`NCCL_SETTINGS`], which training on several GPUs needs, where the environment does not set them already.
/// Does nothing once the process has another thread, which could be reading the environment: call it first of all.
pub fn settle_environment() {
    if cfg!(feature = "cuda") && is_only_thread() {
        for (name, value) in NCCL_SETTINGS.iter().filter(|(name, _)| std::env::var_os(name).is_none()) {
            // SAFETY: the check above found no other thread that could read or write the environment meanwhile, and
            // only another thread could have started one since.
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
        // The test harness runs tests on threads other than the main one.
        assert!(!is_only_thread());
        let now = || NCCL_SETTINGS.map(|(name, _)| std::env::var_os(name));
        let before = now();
        settle_environment();
        assert_eq!(now(), before);
    }
}

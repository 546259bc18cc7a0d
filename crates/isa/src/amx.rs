//! Whether this process may use AMX, the tile registers of newer Intel processors.

use std::sync::OnceLock;

/// Whether the processor multiplies tiles of bf16, and the system keeps the tile registers of this process.
///
/// Linux does so only once a process has asked for it, since they are 8 KiB a thread to save at each switch; the first
/// call asks, for all threads. Other systems are not asked.
pub fn allowed() -> bool {
    static ALLOWED: OnceLock<bool> = OnceLock::new();
    *ALLOWED.get_or_init(|| present() && permitted())
}

/// Whether the processor has tiles and their products of bf16, and the system has switched on the tile registers.
fn present() -> bool {
    use std::arch::x86_64::{__cpuid, __cpuid_count, _xgetbv};

    /// Leaf 7, register EDX: AMX-BF16 and AMX-TILE.
    const PRODUCTS: u32 = 1 << 22 | 1 << 24;
    /// Extended control register 0: tile configuration and tile data.
    const REGISTERS: u64 = 0b11 << 17;

    #[target_feature(enable = "xsave")]
    fn enabled() -> u64 {
        // SAFETY: the function is called only where the system uses XSAVE; register 0 exists there.
        unsafe { _xgetbv(0) }
    }

    if !is_x86_feature_detected!("xsave") {
        return false;
    }
    // Asking the processor is unsafe in Rust 1.89, the oldest that must do, and safe in newer versions.
    #[allow(unused_unsafe)]
    // SAFETY: every x86-64 processor has this instruction.
    let features = unsafe { if __cpuid(0).eax < 7 { 0 } else { __cpuid_count(7, 0).edx } };
    // SAFETY: the processor has XSAVE, and `is_x86_feature_detected` reports it only where the system uses it.
    let enabled = unsafe { enabled() };
    features & PRODUCTS == PRODUCTS && enabled & REGISTERS == REGISTERS
}

/// Asks Linux for permission (`ARCH_REQ_XCOMP_PERM`, since 5.16).
#[cfg(target_os = "linux")]
fn permitted() -> bool {
    const REQUEST: libc::c_int = 0x1023;
    const TILE_DATA: libc::c_ulong = 18;
    // SAFETY: this call takes two numbers and touches no memory of the process.
    unsafe { libc::syscall(libc::SYS_arch_prctl, REQUEST, TILE_DATA) == 0 }
}

#[cfg(not(target_os = "linux"))]
fn permitted() -> bool {
    false
}

//! Packs the program's relocations: the loader reads them all, and a daemon keeps what was read. Half
//! a MiB less of memory, with the C library of Debian 12 (glibc 2.36) or later.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rustc-link-arg-bin=iapd=-Wl,-z,pack-relative-relocs");
}

//! Compiles the kernel programs to one CO-RE object and generates its skeleton into `OUT_DIR`.

use std::env;
use std::error::Error;
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};

use libbpf_cargo::SkeletonBuilder;

fn main() -> Result<(), Box<dyn Error>> {
    let out = PathBuf::from(env::var("OUT_DIR")?);
    let object = out.join("armor.o");
    let arch = match env::var("CARGO_CFG_TARGET_ARCH")?.as_str() {
        "x86_64" => "-D__TARGET_ARCH_x86",
        "aarch64" => "-D__TARGET_ARCH_arm64",
        other => {
            return Err(format!("no kernel programs for {other}: x86_64 and aarch64 are supported").into());
        }
    };
    // <asm/types.h>, which <linux/bpf.h> wants, lies in Debian's multiarch folder, where clang's bpf target does not look.
    let multiarch = format!("-I/usr/include/{}-linux-gnu", env::consts::ARCH);
    // The types name the sources; where those lie must not make another object.
    let sources = format!("-ffile-prefix-map={}=/src/bpf", env::var("CARGO_MANIFEST_DIR")?);
    SkeletonBuilder::new()
        .source("src/bpf/armor.bpf.c")
        .obj(&object)
        .clang_args([arch, "-mcpu=v3", "-Wall", "-Werror", &multiarch, &sources])
        .build_and_generate(out.join("armor.skel.rs"))
        .map_err(|error| {
            format!("the kernel programs do not compile (clang 14 or newer is needed): {error:?}")
        })?;

    // These name the pins of exactly these programs, so that another build's are replaced and this one's taken over.
    for (name, file) in [("ARMOR_ABI_HASH", Path::new("src/bpf/abi.h")), ("ARMOR_OBJECT_HASH", &object)] {
        let mut hasher = DefaultHasher::new();
        fs::read(file)?.hash(&mut hasher);
        println!("cargo:rustc-env={name}={:016x}", hasher.finish());
    }
    println!("cargo:rerun-if-changed=src/bpf");
    Ok(())
}

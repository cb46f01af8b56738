//! Compiles the kernel programs to a CO-RE object per supported architecture, `OUT_DIR/ARCH/armor.o`, and generates the
//! skeleton of the target's into `OUT_DIR`.

use std::env;
use std::error::Error;
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};

use libbpf_cargo::SkeletonBuilder;

/// As Rust calls an architecture, and as libbpf's headers do.
const ARCHITECTURES: [(&str, &str); 2] = [("x86_64", "x86"), ("aarch64", "arm64")];

/// Raised where programs of the same object must not be taken over from an agent of before: 2, since it looks at the addresses
/// that they get (`symbols.rs`).
const LOADED_AS: u32 = 2;

fn main() -> Result<(), Box<dyn Error>> {
    let out = PathBuf::from(env::var("OUT_DIR")?);
    let target = env::var("CARGO_CFG_TARGET_ARCH")?;
    if !ARCHITECTURES.iter().any(|(arch, _)| *arch == target) {
        return Err(format!("no kernel programs for {target}: x86_64 and aarch64 are supported").into());
    }
    // <asm/types.h>, which <linux/bpf.h> wants, lies in Debian's multiarch directory, where clang's bpf target does not look.
    let multiarch = format!("-I/usr/include/{}-linux-gnu", env::consts::ARCH);
    // The types name the sources; where those lie must not make another object.
    let sources = format!("-ffile-prefix-map={}=/src/bpf", env::var("CARGO_MANIFEST_DIR")?);
    for (arch, name) in ARCHITECTURES {
        // Its name gets into the skeleton.
        let object = out.join(arch).join("armor.o");
        fs::create_dir_all(out.join(arch))?;
        let define = format!("-D__TARGET_ARCH_{name}");
        let mut builder = SkeletonBuilder::new();
        builder
            .source("src/bpf/armor.bpf.c")
            .obj(&object)
            .clang_args([&define, "-mcpu=v3", "-Wall", "-Werror", &multiarch, &sources])
            .build()
            .map_err(|error| {
                format!(
                    "the kernel programs for {arch} do not compile (clang 14 or newer is needed): {error:?}"
                )
            })?;
        if arch == target {
            builder.generate(out.join("armor.skel.rs"))?;
            // These name the pins of exactly these programs, loaded as they are now, so that another build's are replaced and this one's taken over.
            for (name, file) in
                [("ARMOR_ABI_HASH", Path::new("src/bpf/abi.h")), ("ARMOR_OBJECT_HASH", &object)]
            {
                let mut hasher = DefaultHasher::new();
                (fs::read(file)?, LOADED_AS).hash(&mut hasher);
                println!("cargo:rustc-env={name}={:016x}", hasher.finish());
            }
        }
    }
    println!("cargo:rerun-if-changed=src/bpf");
    Ok(())
}

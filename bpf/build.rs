//! Compiles the kernel programs to a CO-RE object per supported architecture, `OUT_DIR/ARCH/armor.o`, and
//! generates the skeleton of the target's object into `OUT_DIR`.

use std::env;
use std::error::Error;
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};

use libbpf_cargo::SkeletonBuilder;

/// Names of the architectures, in Rust and in libbpf's headers.
const ARCHITECTURES: [(&str, &str); 2] = [("x86_64", "x86"), ("aarch64", "arm64")];

/// Version of how programs are loaded. Raise it if an agent must not take over programs of the same object
/// from an earlier agent. It is 2 since the agent checks the addresses that they get (`symbols.rs`).
const LOADED_AS: u32 = 2;

fn main() -> Result<(), Box<dyn Error>> {
    let out = PathBuf::from(env::var("OUT_DIR")?);
    let target = env::var("CARGO_CFG_TARGET_ARCH")?;
    if !ARCHITECTURES.iter().any(|(arch, _)| *arch == target) {
        return Err(format!("no kernel programs for {target}: x86_64 and aarch64 are supported").into());
    }
    // clang's bpf target does not look into Debian's multiarch directory, where <asm/types.h> is, which
    // <linux/bpf.h> includes.
    let multiarch = format!("-I/usr/include/{}-linux-gnu", env::consts::ARCH);
    // The types in the object name the source files. The place of the sources must not change the object.
    let sources = format!("-ffile-prefix-map={}=/src/bpf", env::var("CARGO_MANIFEST_DIR")?);
    for (arch, name) in ARCHITECTURES {
        // The skeleton is named after this file.
        let object = out.join(arch).join("armor.o");
        fs::create_dir_all(out.join(arch))?;
        let define = format!("-D__TARGET_ARCH_{name}");
        let mut builder = SkeletonBuilder::new();
        builder
            .source("src/bpf/armor.bpf.c")
            .obj(&object)
            .clang_args([&define, "-mcpu=v3", "-Wall", "-Werror", "-Isrc/bpf", &multiarch, &sources])
            .build()
            .map_err(|error| {
                format!(
                    "the kernel programs for {arch} do not compile (clang 14 or newer is needed): {error:?}"
                )
            })?;
        if arch == target {
            builder.generate(out.join("armor.skel.rs"))?;
            // The hashes name the pins of exactly these programs, loaded in this way, so that an agent
            // replaces those of another build and takes over its own.
            for (name, file) in
                [("ARMOR_ABI_HASH", Path::new("src/bpf/core/contract.h")), ("ARMOR_OBJECT_HASH", &object)]
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

//! Compiles our own .proto files with a compiler written in Rust: nothing to install, nothing downloaded.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let files = ["chancery/wire/discovery.proto"];
    for file in files {
        println!("cargo:rerun-if-changed={file}");
    }
    let descriptors = protox::compile(files, ["."])?;
    prost_build::Config::new().bytes(["."]).btree_map(["."]).enable_type_names().compile_fds(descriptors)?;
    Ok(())
}

//! Takes the program of `docs/clients.md` out of the page, for `src/bin/chat.rs`.

use std::{env, error::Error, fs, path::Path};

const PAGE: &str = "../../docs/clients.md";

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed={PAGE}");
    let page = fs::read_to_string(PAGE)?;
    let (_, chapter) = page
        .split_once("\n## Rust: rumqttc\n")
        .ok_or("no chapter")?;
    let (_, program) = chapter.split_once("\n```rust\n").ok_or("no program")?;
    let (program, _) = program
        .split_once("\n```\n")
        .ok_or("no end of the program")?;
    fs::write(Path::new(&env::var("OUT_DIR")?).join("chat.rs"), program)?;
    Ok(())
}

//! Small files that settings and options name: read whole, up to a bound.
//!
//! A path may be mistyped, or lead to a device: a file that does not end is found out, and takes no more memory than one
//! that is right.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

/// Bytes of such a file at most: certificates, keys, settings.
pub(crate) const MAX_BYTES: u64 = 1 << 20;

/// All of the file.
///
/// # Errors
/// If it cannot be read, or has more than [`MAX_BYTES`].
pub(crate) fn read(path: &Path) -> io::Result<Vec<u8>> {
    bytes_of(File::open(path)?)
}

/// As [`read`], in UTF-8.
///
/// # Errors
/// As [`read`], and if it is something else than text.
pub(crate) fn read_text(path: &Path) -> io::Result<String> {
    text_of(File::open(path)?)
}

/// As [`read_text`], of a file that has been looked at.
///
/// # Errors
/// As [`read_text`].
pub(crate) fn text_of(file: File) -> io::Result<String> {
    String::from_utf8(bytes_of(file)?)
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "it is not text in UTF-8"))
}

fn bytes_of(file: File) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.take(MAX_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(io::Error::new(
            io::ErrorKind::FileTooLarge,
            "it has more than 1 MiB; is it the right file?",
        ));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_end_is_too_large() {
        for endless in ["/dev/zero", "/dev/urandom"] {
            let error = read_text(Path::new(endless)).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::FileTooLarge);
        }
    }

    #[test]
    fn the_largest_file_is_read_and_the_next_one_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        let most = usize::try_from(MAX_BYTES).unwrap();
        std::fs::write(&file, "x".repeat(most)).unwrap();
        assert_eq!(read_text(&file).unwrap().len(), most);
        std::fs::write(&file, "x".repeat(most + 1)).unwrap();
        assert!(read(&file).is_err());
        std::fs::write(&file, [0xFF]).unwrap();
        assert!(read(&file).is_ok() && read_text(&file).is_err());
    }
}

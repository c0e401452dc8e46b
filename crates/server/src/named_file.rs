//! Small files that settings and options name: read whole, up to a bound.
//!
//! A path may be mistyped, or lead to a device: a file that does not end is found out, and takes no more memory than one
//! that is right; a pipe, which is read once and waits for its writer, is found out before it is opened.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::FileTypeExt;
use std::path::Path;

/// Bytes of such a file at most: certificates, keys, settings.
pub(crate) const MAX_BYTES: u64 = 1 << 20;

/// Looks what is there, without opening it.
///
/// # Errors
/// If that cannot be found out, or it is a directory, a pipe or a socket: [`is_wrong_kind`].
pub(crate) fn expect_file(path: &Path) -> io::Result<()> {
    let kind = fs::metadata(path)?.file_type();
    let (error, what) = if kind.is_dir() {
        (io::ErrorKind::IsADirectory, "it is a directory, not a file")
    } else if kind.is_fifo() {
        (io::ErrorKind::InvalidInput, "it is a pipe, not a file")
    } else if kind.is_socket() {
        (io::ErrorKind::InvalidInput, "it is a socket, not a file")
    } else {
        return Ok(());
    };
    Err(io::Error::new(error, what))
}

/// Opens the file.
///
/// # Errors
/// As [`expect_file`], and if it cannot be opened.
pub(crate) fn open(path: &Path) -> io::Result<File> {
    expect_file(path)?;
    File::open(path)
}

/// Whether an error of [`expect_file`] or [`open`] says that there is something else than a file.
pub(crate) fn is_wrong_kind(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::IsADirectory | io::ErrorKind::InvalidInput
    )
}

/// All of the file.
///
/// # Errors
/// As [`open`], and if it cannot be read or has more than [`MAX_BYTES`].
pub(crate) fn read(path: &Path) -> io::Result<Vec<u8>> {
    bytes_of(open(path)?)
}

/// As [`read`], in UTF-8.
///
/// # Errors
/// As [`read`], and if it is something else than text.
pub(crate) fn read_text(path: &Path) -> io::Result<String> {
    text_of(open(path)?)
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
    fn what_is_no_file_is_told_by_what_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let [pipe, socket] = ["pipe", "socket"].map(|name| dir.path().join(name));
        rustix::fs::mknodat(
            rustix::fs::CWD,
            &pipe,
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::RUSR,
            0,
        )
        .unwrap();
        let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        for (path, what) in [
            (dir.path(), "a directory"),
            (&pipe, "a pipe"),
            (&socket, "a socket"),
        ] {
            let error = read(path).unwrap_err();
            assert!(
                is_wrong_kind(&error) && error.to_string().contains(what),
                "{error}"
            );
        }
    }

    #[test]
    fn the_largest_file_is_read_and_the_next_one_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        let most = usize::try_from(MAX_BYTES).unwrap();
        fs::write(&file, "x".repeat(most)).unwrap();
        assert_eq!(read_text(&file).unwrap().len(), most);
        fs::write(&file, "x".repeat(most + 1)).unwrap();
        assert!(read(&file).is_err());
        fs::write(&file, [0xFF]).unwrap();
        assert!(read(&file).is_ok() && read_text(&file).is_err());
    }
}

//! The arguments of one request, however they are held.

/// The arguments of a request, the command's name first.
///
/// The session's request is a range of a read buffer, a test's is a slice of
/// slices; what only looks at arguments takes either, and nothing is copied.
pub trait Args {
    /// How many arguments there are, the name included.
    fn count(&self) -> usize;

    /// Argument `index`, the name being 0; `None` beyond the end.
    fn arg(&self, index: usize) -> Option<&[u8]>;
}

impl<T: AsRef<[u8]>> Args for [T] {
    fn count(&self) -> usize {
        self.len()
    }

    fn arg(&self, index: usize) -> Option<&[u8]> {
        self.get(index).map(AsRef::as_ref)
    }
}

impl<T: AsRef<[u8]>> Args for Vec<T> {
    fn count(&self) -> usize {
        self.len()
    }

    fn arg(&self, index: usize) -> Option<&[u8]> {
        self.get(index).map(AsRef::as_ref)
    }
}

impl<T: AsRef<[u8]>, const N: usize> Args for [T; N] {
    fn count(&self) -> usize {
        N
    }

    fn arg(&self, index: usize) -> Option<&[u8]> {
        self.get(index).map(AsRef::as_ref)
    }
}

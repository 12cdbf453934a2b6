//! One kind of error for the whole stack, and its one mapping to and from rpc status codes.
//!
//! Every module error of the programs can say its kind. The map to HTTP lives in dockerd-lite, the map to exit codes in
//! docker-lite.

/// What kind of error, independent of the protocol that carries it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// The object does not exist.
    NotFound,
    /// An object of that name exists.
    AlreadyExists,
    /// The request itself is wrong.
    InvalidArgument,
    /// The object is not in a state that allows it.
    FailedPrecondition,
    /// An offset lies outside of the object.
    OutOfRange,
    /// The operation lost a race.
    Aborted,
    /// The caller may not do it.
    PermissionDenied,
    /// The caller did not say who it is.
    Unauthenticated,
    /// A limit is reached: disk, memory, processes.
    ResourceExhausted,
    /// There was nothing to do (304 in HTTP).
    NotModified,
    /// Not supported here.
    Unimplemented,
    /// Another program cannot be reached; a later try may succeed.
    Unavailable,
    /// No answer in time.
    DeadlineExceeded,
    /// The caller gave up.
    Cancelled,
    /// The cause is not known.
    Unknown,
    /// A fault of ours.
    Internal,
}

impl ErrorKind {
    /// The gRPC status code (ttrpc uses the same numbers). NotModified travels as FailedPrecondition, as containerd sends it.
    pub fn code(self) -> i32 {
        match self {
            Self::Cancelled => 1,
            Self::Unknown => 2,
            Self::InvalidArgument => 3,
            Self::DeadlineExceeded => 4,
            Self::NotFound => 5,
            Self::AlreadyExists => 6,
            Self::PermissionDenied => 7,
            Self::ResourceExhausted => 8,
            Self::FailedPrecondition | Self::NotModified => 9,
            Self::Aborted => 10,
            Self::OutOfRange => 11,
            Self::Unimplemented => 12,
            Self::Internal => 13,
            Self::Unavailable => 14,
            Self::Unauthenticated => 16,
        }
    }

    /// The kind of a gRPC status code; DataLoss (15) and numbers outside of the list are Unknown.
    pub fn from_code(code: i32) -> Self {
        match code {
            1 => Self::Cancelled,
            3 => Self::InvalidArgument,
            4 => Self::DeadlineExceeded,
            5 => Self::NotFound,
            6 => Self::AlreadyExists,
            7 => Self::PermissionDenied,
            8 => Self::ResourceExhausted,
            9 => Self::FailedPrecondition,
            10 => Self::Aborted,
            11 => Self::OutOfRange,
            12 => Self::Unimplemented,
            13 => Self::Internal,
            14 => Self::Unavailable,
            16 => Self::Unauthenticated,
            _ => Self::Unknown,
        }
    }
}

#[cfg(feature = "rpc")]
impl ErrorKind {
    /// A gRPC status of this kind.
    pub fn status(self, message: impl Into<String>) -> tonic::Status {
        tonic::Status::new(tonic::Code::from_i32(self.code()), message)
    }

    /// The kind of a gRPC status.
    pub fn of(status: &tonic::Status) -> Self {
        Self::from_code(status.code().into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_come_back_as_the_same_kind() {
        for code in (1..=14).chain([16]) {
            assert_eq!(ErrorKind::from_code(code).code(), code);
        }
        assert_eq!(ErrorKind::from_code(15), ErrorKind::Unknown);
        assert_eq!(ErrorKind::NotModified.code(), 9);
    }
}

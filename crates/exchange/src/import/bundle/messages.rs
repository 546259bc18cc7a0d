//! The messages of a TensorBundle's index (`tensor_bundle.proto` of TensorFlow), the fields that are read.

/// The value of the empty key.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct BundleHeader {
    /// How many files the values are in.
    #[prost(int32, tag = "1")]
    pub num_shards: i32,
    /// 0 where values are little-endian.
    #[prost(int32, tag = "2")]
    pub endianness: i32,
}

/// The value of a tensor's name.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct BundleEntry {
    /// One of `DataType`.
    #[prost(int32, tag = "1")]
    pub dtype: i32,
    #[prost(message, optional, tag = "2")]
    pub shape: Option<TensorShape>,
    /// The file that it is in.
    #[prost(int32, tag = "3")]
    pub shard_id: i32,
    /// Its offset there.
    #[prost(int64, tag = "4")]
    pub offset: i64,
    /// Its length in bytes.
    #[prost(int64, tag = "5")]
    pub size: i64,
    /// The masked CRC-32C of its bytes.
    #[prost(fixed32, tag = "6")]
    pub crc32c: u32,
    /// Its slices, if it was saved in several.
    #[prost(message, repeated, tag = "7")]
    pub slices: Vec<TensorSlice>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct TensorShape {
    #[prost(message, repeated, tag = "2")]
    pub dim: Vec<Dimension>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Dimension {
    #[prost(int64, tag = "1")]
    pub size: i64,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct TensorSlice {}

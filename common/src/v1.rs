//! The generated interface `iap.v1`; its reference is `proto/iap/v1/*.proto`.

#![expect(
    clippy::allow_attributes,
    clippy::large_enum_variant,
    reason = "generated code"
)]

tonic::include_proto!("iap.v1");

/// The encoded descriptors of the interface, for gRPC reflection.
pub const DESCRIPTORS: &[u8] = tonic::include_file_descriptor_set!("iap_descriptor");

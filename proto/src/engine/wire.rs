//! The macro that writes a wire struct from its list of fields.

use serde::{Deserialize, Deserializer};

/// Declares structs whose fields are written `"WireName" rust_name: Type,`.
///
/// A field may carry `[omitempty]` (left out of the output when it equals its default) or
/// `[flatten]` (its own fields stand in its place; the wire name is then only a remark).
macro_rules! wire {
    ($(
        $(#[$meta:meta])*
        pub struct $name:ident {
            $( $wire:literal $([$mode:ident])? $field:ident : $ty:ty, )*
        }
    )*) => { $(
        $crate::engine::wire::wire! { @one [$(#[$meta])* pub struct $name] []
            $( ( $wire $([$mode])? $field : $ty ) )* }
    )* };

    (@one [$($head:tt)*] [$($done:tt)*] ($wire:literal [omitempty] $field:ident : $ty:ty) $($rest:tt)*) => {
        $crate::engine::wire::wire! { @one [$($head)*] [ $($done)*
            #[doc = concat!("`", $wire, "`, left out when empty.")]
            #[serde(rename = $wire, default, deserialize_with = "crate::engine::wire::nullable",
                    skip_serializing_if = "crate::engine::wire::is_default")]
            pub $field: $ty,
        ] $($rest)* }
    };
    (@one [$($head:tt)*] [$($done:tt)*] ($wire:literal [flatten] $field:ident : $ty:ty) $($rest:tt)*) => {
        $crate::engine::wire::wire! { @one [$($head)*] [ $($done)*
            #[doc = concat!($wire, ", in place.")]
            #[serde(flatten)]
            pub $field: $ty,
        ] $($rest)* }
    };
    (@one [$($head:tt)*] [$($done:tt)*] ($wire:literal $field:ident : $ty:ty) $($rest:tt)*) => {
        $crate::engine::wire::wire! { @one [$($head)*] [ $($done)*
            #[doc = concat!("`", $wire, "`.")]
            #[serde(rename = $wire, default, deserialize_with = "crate::engine::wire::nullable")]
            pub $field: $ty,
        ] $($rest)* }
    };
    (@one [$($head:tt)*] [$($done:tt)*]) => {
        #[derive(Debug, Clone, Default, PartialEq, serde::Serialize, serde::Deserialize)]
        $($head)* { $($done)* }
    };
}
pub(crate) use wire;

/// Reads `null` as the default value of the type.
pub(crate) fn nullable<'de, D, T>(input: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::<T>::deserialize(input)?.unwrap_or_default())
}

/// Whether a field marked `[omitempty]` is left out.
pub(crate) fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

//! What kind of value an item holds, as its header says it: four bits of type, two of form.

use super::StringForm;
use crate::value::{Form, ValueType};

/// Type and form of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// A string.
    String(StringForm),
    /// A collection of this type, which is none of strings.
    Collection(ValueType, Form),
}

impl Shape {
    /// The type.
    #[inline(always)]
    pub fn value_type(self) -> ValueType {
        match self {
            Shape::String(_) => ValueType::String,
            Shape::Collection(value_type, _) => value_type,
        }
    }

    /// What stands for the form where the type is known.
    pub(crate) fn form_byte(self) -> u8 {
        self.bits().1 as u8
    }

    /// The shape of a type and what [`Shape::form_byte`] gave; `None` for a form that the type has
    /// not.
    pub(crate) fn read(value_type: ValueType, form: u8) -> Option<Shape> {
        let known = match value_type {
            ValueType::String | ValueType::Set => 0..=2,
            ValueType::List | ValueType::SortedSet | ValueType::Hash => 0..=1,
            ValueType::Stream => 1..=1,
        };
        known.contains(&form).then(|| Shape::from_bits(value_type as u64, form.into()))
    }

    /// The bits of the type and those of the form.
    #[inline(always)]
    pub(super) fn bits(self) -> (u64, u64) {
        match self {
            Shape::String(form) => (0, form as u64),
            Shape::Collection(value_type, form) => (value_type as u64, form as u64),
        }
    }

    /// From what [`Shape::bits`] gave.
    #[inline(always)]
    pub(super) fn from_bits(value_type: u64, form: u64) -> Shape {
        if value_type == 0 {
            return Shape::String(match form {
                0 => StringForm::Automatic,
                1 => StringForm::Text,
                _ => StringForm::Raw,
            });
        }
        let value_type = match value_type {
            1 => ValueType::List,
            2 => ValueType::Set,
            3 => ValueType::SortedSet,
            4 => ValueType::Hash,
            _ => ValueType::Stream,
        };
        let form = match form {
            0 => Form::Pack,
            1 => Form::Tree,
            _ => Form::Integers,
        };
        Shape::Collection(value_type, form)
    }
}

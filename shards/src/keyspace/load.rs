//! Putting in values that were read elsewhere: of snapshots, of payloads, of transactions.

use super::shape::Shape;
use super::{Edit, Expiry, Key, StringForm};
use crate::rdb::{EncodedValue, Fault, Piece};
use crate::value::Form;

impl Edit<'_> {
    /// Sets a key to a value, whatever was there, in the form that the limits give it. A deadline
    /// that has passed removes the key.
    /// Errors: a duplicate among the elements; then the key is as it was.
    pub fn restore(
        &mut self,
        key: &Key<'_>,
        value: &EncodedValue<'_>,
        expiry: Expiry,
    ) -> Result<(), Fault> {
        if let Some(string) = value.string() {
            self.set_string(key, &string, StringForm::Automatic, expiry);
            return Ok(());
        }
        let shape = Shape::Collection(value.value_type(), Form::Pack);
        self.install(key, shape, expiry, |guard| value.each(&mut |part| guard.push(part)))
    }

    /// Sets a key to a value of this type and form, or goes on with one whose first piece was set
    /// before. A deadline that has passed removes it.
    /// Errors: a duplicate among the elements, a piece of something else; then the key is as it
    /// was.
    pub fn load(
        &mut self,
        key: &Key<'_>,
        shape: Shape,
        expiry: Expiry,
        value: &EncodedValue<'_>,
        piece: Piece,
    ) -> Result<(), Fault> {
        match (shape, piece) {
            (Shape::String(form), _) => self.load_string(key, form, expiry, value, piece),
            (Shape::Collection(..), Piece::Next(_)) => {
                let mut guard = self.guard(key, shape.value_type()).map_err(|_| Fault::Piece)?;
                guard.keep_this_form();
                value.each(&mut |part| guard.push(part)).map_err(|error| error.fault)
            }
            (Shape::Collection(value_type, form), Piece::Whole | Piece::First(_)) => {
                let small = Shape::Collection(value_type, Form::Pack);
                self.install(key, small, expiry, |guard| {
                    guard.keep_form(form);
                    value.each(&mut |part| guard.push(part))
                })
            }
        }
    }

    fn load_string(
        &mut self,
        key: &Key<'_>,
        form: StringForm,
        expiry: Expiry,
        value: &EncodedValue<'_>,
        piece: Piece,
    ) -> Result<(), Fault> {
        let string = value.string().ok_or(Fault::Piece)?;
        let (from, total) = match piece {
            Piece::Whole => {
                self.set_string(key, &string, form, expiry);
                return Ok(());
            }
            Piece::First(total) => {
                self.set_string(key, b"", form, expiry);
                (0, total as usize)
            }
            Piece::Next(from) => {
                let item = self.view().peek(key).and_then(|item| item.string());
                (from as usize, item.ok_or(Fault::Piece)?.len())
            }
        };
        let bytes = self.string_mut(key, total, form).ok_or(Fault::Piece)?;
        let room = bytes.get_mut(from..).and_then(|room| room.get_mut(..string.len()));
        room.ok_or(Fault::Piece)?.copy_from_slice(&string);
        Ok(())
    }
}

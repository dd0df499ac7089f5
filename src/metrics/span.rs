//! What is under way, as spans of the `tracing` crate; nothing without its
//! feature.
//!
//! Owns the spans and their fields, in OpenTelemetry's words. Does not know who
//! subscribes, nor the text of a statement, which may hold secrets.

#[cfg(feature = "tracing")]
pub(crate) use on::{Span, Wait};

#[cfg(not(feature = "tracing"))]
pub(crate) use off::{Span, Wait};

#[cfg(feature = "tracing")]
mod on {
    use std::future::Future;

    use ::tracing::field::Empty;
    use ::tracing::instrument::{Instrument, Instrumented};
    use ::tracing::{Level, span};

    use crate::Error;

    /// A span at DEBUG, from now until dropped.
    #[derive(Debug)]
    pub(crate) struct Span(::tracing::Span);

    impl Span {
        /// Of a statement.
        #[inline]
        pub(crate) fn statement(system: &str, pool: &str, connection: u64) -> Self {
            Self(span!(
                target: "millpond",
                Level::DEBUG,
                "statement",
                otel.kind = "client",
                db.system.name = system,
                db.client.connection.pool.name = pool,
                millpond.connection.id = connection,
                "error.type" = Empty,
                db.response.status_code = Empty,
            ))
        }

        /// Of a caller that waits for a connection.
        pub(crate) fn wait(pool: &str, label: Option<&'static str>) -> Wait {
            let span = span!(
                target: "millpond",
                Level::DEBUG,
                "acquire",
                db.client.connection.pool.name = pool,
                millpond.label = label,
                "error.type" = Empty,
                db.response.status_code = Empty,
            );
            Wait((!span.is_disabled()).then(|| Box::new(Self(span))))
        }

        /// What has gone wrong in it.
        pub(crate) fn note(&self, error: &Error) {
            self.0.record("error.type", error.cause().as_str());
            if let Some(code) = error.code() {
                self.0.record("db.response.status_code", ::tracing::field::display(code));
            }
        }

        /// Has work done inside.
        pub(crate) fn around<F: Future>(&self, work: F) -> Instrumented<F> {
            work.instrument(self.0.clone())
        }
    }

    /// The span of a caller that waits, in one word: it lies in the future of
    /// every acquire.
    #[derive(Debug)]
    pub(crate) struct Wait(Option<Box<Span>>);

    impl Wait {
        /// What the caller is told.
        pub(crate) fn note(&self, error: &Error) {
            if let Some(span) = &self.0 {
                span.note(error);
            }
        }
    }
}

#[cfg(not(feature = "tracing"))]
mod off {
    use std::future::Future;

    use crate::Error;

    /// Nothing.
    #[derive(Debug)]
    pub(crate) struct Span;

    /// The same nothing.
    pub(crate) type Wait = Span;

    impl Span {
        #[inline]
        pub(crate) fn statement(_system: &str, _pool: &str, _connection: u64) -> Self {
            Self
        }

        #[inline]
        pub(crate) fn wait(_pool: &str, _label: Option<&'static str>) -> Self {
            Self
        }

        #[inline]
        pub(crate) fn note(&self, _error: &Error) {}

        #[inline]
        pub(crate) fn around<F: Future>(&self, work: F) -> F {
            work
        }
    }
}

//! Room `frontend`.

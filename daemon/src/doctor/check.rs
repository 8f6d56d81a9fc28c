//! One check: what was looked at, what was found, why it matters and what to do.

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    /// As it should be.
    Ok,
    /// Works, and is worth knowing.
    Notice,
    /// Works now, and will fail or be slow.
    Warning,
    /// Agents cannot run, or jobs fail.
    Error,
    /// Could not be looked at.
    Skipped,
}

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// Stable name of what was checked.
    pub id: &'static str,
    /// The same for people.
    pub title: &'static str,
    /// How bad it is.
    pub severity: Severity,
    /// What was found.
    pub finding: String,
    /// Why it matters.
    pub why: &'static str,
    /// What to do, a line each; may be empty.
    pub fix: String,
    /// Which pool, storage pool or URL it is about; may be empty.
    pub subject: String,
}

/// What can be checked.
pub(super) struct Topic {
    pub(super) id: &'static str,
    pub(super) title: &'static str,
    pub(super) why: &'static str,
}

impl Topic {
    fn check(&self, severity: Severity, finding: String, fix: String) -> Check {
        Check {
            id: self.id,
            title: self.title,
            severity,
            finding,
            why: self.why,
            fix,
            subject: String::new(),
        }
    }

    pub(super) fn ok(&self, finding: impl Into<String>) -> Check {
        self.check(Severity::Ok, finding.into(), String::new())
    }

    pub(super) fn notice(&self, finding: impl Into<String>, fix: impl Into<String>) -> Check {
        self.check(Severity::Notice, finding.into(), fix.into())
    }

    pub(super) fn warning(&self, finding: impl Into<String>, fix: impl Into<String>) -> Check {
        self.check(Severity::Warning, finding.into(), fix.into())
    }

    pub(super) fn error(&self, finding: impl Into<String>, fix: impl Into<String>) -> Check {
        self.check(Severity::Error, finding.into(), fix.into())
    }

    pub(super) fn skipped(&self, reason: impl Into<String>) -> Check {
        self.check(Severity::Skipped, reason.into(), String::new())
    }
}

impl Check {
    /// Says what it is about.
    pub(super) fn about(mut self, subject: &str) -> Self {
        subject.clone_into(&mut self.subject);
        self
    }

    /// Says what to do.
    pub(super) fn fix(mut self, fix: impl Into<String>) -> Self {
        self.fix = fix.into();
        self
    }
}

//! What the system tests are made of: the Azure DevOps simulator, the test bed, waiting.

//! A throw-away agent key and an assertion signed with it, checked against .NET; only for this module's unit tests.

/// The public modulus; the exponent is `AQAB`.
pub(super) const MODULUS: &str = "\
2W2gNIIGGI2POkEeb12okyi7nikwcBgjnIrfA0kY3QQkAGk58/PdQLYUOQXyPztkBAlj/hFB4vtxl9oCv0E4g69eCyU4lVJp\
iVuD6RZMuOmGer/Uy25Zip2AXPhekw+7Rg1dnS+Hu8oWlLe0nLPjEbHH0zFeumgVw3YWW5shMTryViaRqRrYp8md3OUhv3rJ\
rC2DQGfBrUMoIkzOtRu/CK9++zE1dU3LQPFql/KYSGX4CaMFunhbJR9dyfG8ICkn4PWSM3/IRhwbMGGonkdH58T9Kd+leceE\
62HiZdeJEIQnIr2pRdXtHnm1z/Icae7UAsdzFSqWL3y6apvKzKUu1w==";

/// The client id the assertion names.
pub(super) const CLIENT_ID: &str = "0b1c2d3e-4f50-4617-8829-3a4b5c6d7e8f";

/// The audience the assertion names.
pub(super) const AUDIENCE: &str = "http://127.0.0.1:8787/sim-org/_apis/oauth2/token";

/// When the assertion starts to be valid; it lasts 300 seconds.
pub(super) const NOT_BEFORE: i64 = 1790000000;

/// The signed assertion.
pub(super) const JWT: &str = "\
eyJ0eXAiOiJKV1QiLCJhbGciOiJSUzI1NiJ9.eyJzdWIiOiIwYjFjMmQzZS00ZjUwLTQ2MTctODgyOS0zYTRiNWM2ZDdlOGY\
iLCJqdGkiOiI1ZDZmN2E4MS05MmEzLTRiYjQtOGNjNS1kZDZlZTdmZjgwOTEiLCJpc3MiOiIwYjFjMmQzZS00ZjUwLTQ2MTc\
tODgyOS0zYTRiNWM2ZDdlOGYiLCJhdWQiOiJodHRwOi8vMTI3LjAuMC4xOjg3ODcvc2ltLW9yZy9fYXBpcy9vYXV0aDIvdG9\
rZW4iLCJuYmYiOjE3OTAwMDAwMDAsImV4cCI6MTc5MDAwMDMwMH0.lmsjvzDoVYCuH0XBsIZ8G4fO1xg9AvnTxN61RZIVIN8\
Li5ugBozXz_yhbPMlNKSPKXwMi36QfKzBaLLb0Ra_73WjeHyD0ZjY973z6lT5p8F3h8PIuQ7r-KEjnHMzJC_OW84FJkssqjW\
YhQ7XKq-gqXh7VGNBHeGgeKvQj2JvEmU1jagYOmtRuHv2XWm8xFQzC4PAmvqyVDFNMN5KG_O8N4MDdvi_2isPicfYRCG468P\
aTjNfCgTrq5RjjOdojtLwf1Sqj_Lh34nY7Yg06xDE_eH94UfEKTvmbLkqBvp_nzFyjGt7etFBKErjpdkmPKWL57NDtHQu1y6\
XlqVvk6egfA";

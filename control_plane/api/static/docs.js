// Starts Swagger UI on this server's own description. Addresses are relative, so a path prefix put
// in front by a proxy works; validatorUrl is null, so no document is sent to another host.
"use strict";

window.ui = SwaggerUIBundle({
  url: "openapi.json",
  dom_id: "#swagger-ui",
  validatorUrl: null,
  persistAuthorization: true,
  tryItOutEnabled: true,
  displayRequestDuration: true,
  deepLinking: true,
  docExpansion: "list",
  operationsSorter: "alpha",
  defaultModelsExpandDepth: 0,
  presets: [SwaggerUIBundle.presets.apis],
});

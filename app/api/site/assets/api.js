// Starts Swagger UI. data-closed-tags names the sections that start closed.

const closedTags = document.currentScript.dataset.closedTags.split(" ");
const prefersDark = matchMedia("(prefers-color-scheme: dark)");
const followScheme = () => document.documentElement.classList.toggle("dark-mode", prefersDark.matches);
prefersDark.addEventListener("change", followScheme);
followScheme();

const ui = SwaggerUIBundle({
  url: "docs/openapi.json",
  dom_id: "#swagger-ui",
  deepLinking: true,
  defaultModelExpandDepth: 2,
  defaultModelsExpandDepth: -1, // hides the list of 150 schemas: each operation shows those it uses
  displayRequestDuration: true,
  filter: true,
  persistAuthorization: true,
  syntaxHighlight: { theme: "agate" },
  onComplete() {
    const linkedTag = decodeURIComponent(location.hash).split("/")[1];
    for (const tag of closedTags) {
      if (tag !== linkedTag) ui.layoutActions.show(["operations-tag", tag], false);
    }
  },
});
window.ui = ui;

// A site's OpenID Connect provider, for tests: npm's oidc-provider, with its own pages for login and consent.
// Its settings are one JSON object on the standard input. It prints a line when it listens.
import fs from "node:fs";
import https from "node:https";
import { Provider } from "oidc-provider";

const site = JSON.parse(fs.readFileSync(0, "utf8"));
const now = Date.now;
Date.now = () => now() + site.clock * 1000;
const provider = new Provider(site.issuer, {
  clients: [
    {
      client_id: "jupyterhub",
      client_secret: site.secret,
      redirect_uris: [site.callback],
      token_endpoint_auth_method: "client_secret_post",
    },
  ],
  claims: { openid: ["sub"], profile: ["preferred_username", "groups"] },
  cookies: { keys: ["x"] },
  findAccount: (_, id) => ({
    accountId: id,
    claims: () => ({ sub: `number of ${id}`, preferred_username: id, groups: site.people[id] }),
  }),
  pkce: { required: () => true },
});
provider.use((context, next) => (context.path === site.broken ? context.req.destroy() : next()));
https
  .createServer({ cert: site.cert, key: site.key }, provider.callback())
  .listen(new URL(site.issuer).port, "127.0.0.1", () => console.log("ready"));

// An issuer on loopback for tests: oidc-provider with registration of clients, resource indicators and signed access
// tokens. What an account or a client may be granted is given as JSON in the first argument:
//   accounts   login -> scopes that it may pass on to a client
//   clients    id -> { secret, lifetime_s } of clients that act for themselves
//   resources  audiences that tokens are made for
//   scopes     all scopes that there are
// Says `issuer URL` when it listens.
import { generateKeyPairSync } from 'node:crypto';
import { createServer } from 'node:http';

import Provider, { errors } from 'oidc-provider';

const { accounts, clients, resources, scopes } = JSON.parse(process.argv[2]);
const LIFETIME_S = 600;

function key(kind, options, algorithm) {
  const { privateKey } = generateKeyPairSync(kind, options);
  return { ...privateKey.export({ format: 'jwk' }), use: 'sig', alg: algorithm, kid: algorithm };
}

const configuration = {
  clientDefaults: { id_token_signed_response_alg: 'ES256' },
  clients: Object.entries(clients).map(([id, { secret }]) => ({
    client_id: id,
    client_secret: secret,
    grant_types: ['client_credentials'],
    redirect_uris: [],
    response_types: [],
  })),
  cookies: { keys: ['loopback'] },
  features: {
    clientCredentials: { enabled: true },
    devInteractions: { enabled: false },
    registration: { enabled: true },
    resourceIndicators: {
      enabled: true,
      getResourceServerInfo: (_, resource, client) => {
        if (!resources.includes(resource)) {
          throw new errors.InvalidTarget();
        }
        return {
          accessTokenFormat: 'jwt',
          accessTokenTTL: clients[client.clientId]?.lifetime_s ?? LIFETIME_S,
          audience: resource,
          jwt: { sign: { alg: 'ES256' } },
          scope: scopes.join(' '),
        };
      },
    },
  },
  findAccount: (_, login) => (login in accounts ? { accountId: login, claims: () => ({ sub: login }) } : undefined),
  interactions: { url: (_, interaction) => `/interaction/${interaction.uid}` },
  jwks: {
    keys: [key('ec', { namedCurve: 'P-256' }, 'ES256'), key('rsa', { modulusLength: 2048 }, 'RS256')],
  },
  scopes: ['openid', 'offline_access', ...scopes],
};

// a person logs in, and passes on of what a client asks for as much as there is to pass on
async function answer(provider, request, response) {
  const { prompt, params, session } = await provider.interactionDetails(request, response);
  if (request.method !== 'POST') {
    response.end(`<form method="post"><input name="login"></form> ${prompt.name}`);
    return;
  }
  let body = '';
  for await (const part of request) {
    body += part;
  }
  let result;
  if (prompt.name === 'login') {
    result = { login: { accountId: new URLSearchParams(body).get('login') } };
  } else {
    const own = new Set(accounts[session.accountId]);
    const grant = new provider.Grant({ accountId: session.accountId, clientId: params.client_id });
    grant.addOIDCScope((prompt.details.missingOIDCScope ?? []).join(' '));
    for (const [resource, asked] of Object.entries(prompt.details.missingResourceScopes ?? {})) {
      grant.addResourceScope(resource, asked.filter((scope) => own.has(scope)).join(' '));
      grant.rejectResourceScope(resource, asked.filter((scope) => !own.has(scope)).join(' '));
    }
    result = { consent: { grantId: await grant.save() } };
  }
  await provider.interactionFinished(request, response, result, { mergeWithLastSubmission: true });
}

const server = createServer();
server.listen(0, '127.0.0.1', () => {
  const issuer = `http://127.0.0.1:${server.address().port}`;
  const provider = new Provider(issuer, configuration);
  const serve = provider.callback();
  server.on('request', (request, response) => {
    if (!request.url.startsWith('/interaction/')) {
      serve(request, response);
      return;
    }
    answer(provider, request, response).catch((problem) => {
      console.error(problem);
      response.writeHead(500).end();
    });
  });
  console.log(`issuer ${issuer}`);
});

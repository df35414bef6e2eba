/** Types of `window.segue`. */

export type Json = string | number | boolean | null | Json[] | { [key: string]: Json | undefined }

export type Properties = { [key: string]: unknown }

/** Automatic capture. Each kind is off unless set; `capture: true` enables all. */
export interface Capture {
  /** Page views, including URL changes of single-page apps. On by default. */
  pages?: boolean
  /** Clicks on links to other hosts: `Outbound Link Clicked`. */
  links?: boolean
  /** Clicks on links to files: `File Downloaded`. */
  downloads?: boolean
  /** `Form Submitted`, without field values. */
  forms?: boolean
  /** `Page Scrolled` at each quarter of the page. */
  scroll?: boolean
  /** Visible time: `Page Left`. */
  time?: boolean
  /** `Rage Click` and `Dead Click`. */
  clicks?: boolean
  /** `JavaScript Error`, the first ten per document. */
  errors?: boolean
  /** `Site Searched`. */
  search?: boolean
}

/** Consent by category. Without `analytics` nothing is stored or sent. */
export interface Consent {
  analytics?: boolean
  personalization?: boolean
  [category: string]: boolean | undefined
}

export interface Message {
  type: 'track' | 'page' | 'identify' | 'group' | 'alias'
  messageId: string
  timestamp: string
  event?: string
  name?: string
  category?: string
  userId?: string
  anonymousId?: string
  groupId?: string
  previousId?: string
  properties?: Properties
  traits?: Properties
  context: Properties
}

export interface Options {
  /** URL of Segue without a trailing slash (default: the page's own host). */
  host?: string
  capture?: boolean | Capture
  /** `required`: store and send nothing before `consent()` is called. */
  consent?: { required?: boolean }
  /** Treat Do Not Track as a refusal. */
  respectDnt?: boolean
  /** Treat Global Privacy Control as a refusal. */
  respectGpc?: boolean
  /** Store nothing; the anonymous id lasts as long as the document. */
  cookieless?: boolean
  /** A domain such as `example.com` whose hosts share the visitor. */
  cookieDomain?: string
  /**
   * `true`: redact e-mail addresses in all texts of page views and events, not only in URLs. A list: omit fields with
   * these names. A function: receives each message before it is queued and returns the message to send, or nothing.
   */
  redact?: true | string[] | ((message: Message) => Message | null | undefined)
  /** Request the visitor's stages and segments. On by default. */
  personalize?: boolean
  /** Keep a stream open that delivers changes at once. */
  stream?: boolean
}

export interface IdentifyOptions {
  /** Token that the site's server gets from POST /v1/visitor-tokens; it proves who is logged in. */
  visitorToken?: string
}

/** The response of /v1/me. Before the first one, only `stages` and `segments` exist, and are empty. */
export interface Personalization {
  anonymous_id?: string | null
  stages: {
    [journey: string]: {
      stage: string | null
      since: string | null
      valid_until: string | null
      content: { [hint: string]: Json } | null
    }
  }
  segments: { key: string; since: string; valid_until: string | null }[]
  traits?: { [name: string]: Json }
  valid_until?: string | null
  withheld?: boolean
  etag?: string
  as_of?: string
}

export interface User {
  /** Undefined until computed; `ready()` waits for it. */
  anonymousId?: string
  userId?: string
  sessionId?: number
}

export interface Segue {
  load(writeKey: string, options?: Options): void
  page(properties?: Properties): void
  page(name: string, properties?: Properties): void
  page(category: string, name: string, properties?: Properties): void
  track(event: string, properties?: Properties): void
  identify(userId: string | number, traits?: Properties, options?: IdentifyOptions): void
  identify(traits: Properties, options?: IdentifyOptions): void
  group(groupId: string | number, traits?: Properties): void
  alias(userId: string | number, previousId?: string | number): void
  reset(): void
  ready(handler: () => void): void
  on(event: 'change', handler: (personalization: Personalization) => void): void
  on(event: Message['type'], handler: (message: Message) => void): void
  /** Undefined until the library has loaded. */
  personalization(): Personalization | undefined
  consent(choice: boolean | Consent): void
  optOut(): void
  optIn(): void
  /** Undefined until the library has loaded. */
  user(): User | undefined
  flush(): void
}

declare global {
  interface Window {
    segue: Segue
  }
  const segue: Segue
}

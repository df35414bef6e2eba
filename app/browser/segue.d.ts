/** Types of `window.segue`. Nothing here is code. */

export type Json = string | number | boolean | null | Json[] | { [key: string]: Json | undefined }

export type Properties = { [key: string]: unknown }

/** What is captured without a call. Each is off unless named; `capture: true` is all of them. */
export interface Capture {
  /** Views of pages, of apps that change their address too. The only one that is on by itself. */
  pages?: boolean
  /** Clicks on links to other hosts: `Outbound Link Clicked`. */
  links?: boolean
  /** Clicks on links to files: `File Downloaded`. */
  downloads?: boolean
  /** `Form Submitted`, never what was typed. */
  forms?: boolean
  /** `Page Scrolled` at each quarter. */
  scroll?: boolean
  /** Visible time: `Page Left`. */
  time?: boolean
  /** `Rage Click` and `Dead Click`. */
  clicks?: boolean
  /** `JavaScript Error`, the first ten of a document. */
  errors?: boolean
  /** `Site Searched`. */
  search?: boolean
}

/** What a visitor may agree to. Without `analytics` nothing is stored and nothing sent. */
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
  /** Where Segue answers, without a slash at the end; the page's own host unless named. */
  host?: string
  capture?: boolean | Capture
  /** `required`: store and send nothing until `consent()` was called. */
  consent?: { required?: boolean }
  /** Take Do Not Track for a refusal. */
  respectDnt?: boolean
  /** Take Global Privacy Control for a refusal. */
  respectGpc?: boolean
  /** Store nothing; the visitor lasts as long as the document. */
  cookieless?: boolean
  /** `example.com` makes one visitor of all its hosts. */
  cookieDomain?: string
  /**
   * `true`: e-mail addresses are taken out of all texts of views and events, not of URLs alone. A list: members of
   * these names are left out. A function gets each message before it is queued and returns what is sent, or nothing.
   */
  redact?: true | string[] | ((message: Message) => Message | null | undefined)
  /** Ask for the visitor's stages and segments. */
  personalize?: boolean
  /** Keep a stream open on which they arrive at once. */
  stream?: boolean
}

export interface IdentifyOptions {
  /** From POST /v1/visitor-tokens, asked for by the site's own server: vouches for who is logged in. */
  visitorToken?: string
}

/** The answer of /v1/me. Before the first one only `stages` and `segments` are there, and empty. */
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
  /** Absent until it is known; `ready()` waits for it. */
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
  on(event: 'change', handler: (answer: Personalization) => void): void
  on(event: Message['type'], handler: (message: Message) => void): void
  /** Absent until the library has arrived. */
  personalization(): Personalization | undefined
  consent(choice: boolean | Consent): void
  optOut(): void
  optIn(): void
  /** Absent until the library has arrived. */
  user(): User | undefined
  flush(): void
}

declare global {
  interface Window {
    segue: Segue
  }
  const segue: Segue
}

package hsapi

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/Azure/go-ntlmssp"
)

// Where a CHALLENGE_MESSAGE (MS-NLMP 2.2.1.2) has what matters here.
const (
	atTargetName  = 12
	atTargetInfo  = 40
	challengeHead = 48
	// oldHead is that of the first release, which knew no target information.
	oldHead = 32
)

// greetNTLM is the message that asks for a challenge.
func greetNTLM() ([]byte, error) {
	greeting, err := ntlmssp.NewNegotiateMessage("", "")
	if err != nil {
		return nil, fmt.Errorf("NTLM: %w", err)
	}
	return greeting, nil
}

// answerNTLM is the answer to a challenge, by NTLMv2. The user may be
// DOMAIN\user.
func answerNTLM(challenge []byte, user, password string) ([]byte, error) {
	tidied, err := tidyChallenge(challenge)
	if err != nil {
		return nil, fmt.Errorf("NTLM: %w", err)
	}
	answer, err := ntlmssp.NewAuthenticateMessage(tidied, user, password, nil)
	if err != nil {
		return nil, fmt.Errorf("NTLM: %w", err)
	}
	return answer, nil
}

// tidyChallenge leaves out what leads to nowhere, and which the library takes
// for granted: proxies that know no target information repeat the flag for it
// all the same (squid's ntlm_fake_auth 5.7 does), and send a shorter head. The
// target's name is never used.
func tidyChallenge(challenge []byte) ([]byte, error) {
	if len(challenge) < oldHead || !bytes.HasPrefix(challenge, []byte("NTLMSSP\x00\x02\x00\x00\x00")) {
		return nil, errors.New("the proxy's challenge is none")
	}
	tidied := bytes.Clone(challenge)
	if len(tidied) < challengeHead {
		tidied = append(tidied, make([]byte, challengeHead-len(tidied))...)
	}
	clear(tidied[atTargetName : atTargetName+8])
	info := tidied[atTargetInfo:challengeHead]
	size, offset := int64(binary.LittleEndian.Uint16(info)), int64(binary.LittleEndian.Uint32(info[4:]))
	if offset < challengeHead || offset+size > int64(len(challenge)) {
		clear(info)
	}
	return tidied, nil
}
